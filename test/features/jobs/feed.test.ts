import type { JobChange } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import { io, type Socket } from 'socket.io-client'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { ServerEvents } from '../../../src/feature.ts'
import type { features } from '../../../src/features/index.ts'
import { type JobsChange, jobChanged } from '../../../src/features/jobs/contract.ts'
import { publishJobChanges } from '../../../src/features/jobs/feed.ts'
import type { ClientEvents, Realtime } from '../../../src/realtime/realtime.ts'
import { accept, untilFinished } from '../../support/reports.ts'
import { useService } from '../../support/service.ts'
import { until } from '../../support/until.ts'

type Client = Socket<ServerEvents<typeof features>, ClientEvents>

describe('job.changed', () => {
  test('tells subscribers of a job from the queue to its end', async () => {
    const { url } = await useService()
    const heard = await subscribe(url)
    const { id } = await accept(url, 'a,b\n1,2\n')
    await untilFinished(url, id)
    const news = () => heard.flatMap(({ jobs }) => jobs).filter((job) => job.id === id)
    await until(() => news().at(-1)?.state === 'succeeded', 'its end is told')
    expect(news().at(-1)).toEqual({
      id,
      kind: 'report.build',
      state: 'succeeded',
      progress: 1,
      note: null,
      attempt: 1,
    })
  })
})

describe('a storm of changes', () => {
  test('is told of once in 200 ms: the newest of each job, and that there was more', () => {
    const { tell, sent } = useFeed()
    for (let n = 0; n < 1_000; n++)
      for (const state of ['queued', 'running', 'succeeded'] as const) tell({ id: `${n}`, state })
    tell({ id: '990', state: 'queued' })
    expect(sent).toEqual([])
    vi.advanceTimersByTime(200)
    expect(sent.length).toBe(1)
    expect(sent[0]?.more).toBe(true)
    const last = Array.from({ length: 20 }, (_, index) => ({
      id: `${980 + index}`,
      state: 'succeeded',
    }))
    expect(sent[0]?.jobs).toMatchObject([
      ...last.filter(({ id }) => id !== '990'),
      { id: '990', state: 'queued' },
    ])
  })

  test('leaves nothing behind: the next message tells of what came after it', () => {
    const { tell, sent } = useFeed()
    for (let n = 0; n < 50; n++) tell({ id: `${n}` })
    vi.advanceTimersByTime(200)
    tell({ id: '50' })
    vi.advanceTimersByTime(200)
    expect(sent[1]).toMatchObject({ jobs: [{ id: '50' }], more: false })
  })

  test('costs nothing once it has ended', () => {
    const { tell, sent, stop } = useFeed()
    tell({ id: '1' })
    stop()
    tell({ id: '2' })
    vi.advanceTimersByTime(1_000)
    expect(sent).toEqual([])
  })
})

/** The feed alone, on a clock of the test's, with what it sends. */
function useFeed() {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const listeners = new Set<(change: JobChange) => void>()
  const sent: JobsChange[] = []
  const onChange: Jobs['onChange'] = (listener) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  const emitLatest: Realtime['emitLatest'] = (_, { name }, payload) => {
    expect(name).toBe(jobChanged.name)
    sent.push(payload as JobsChange)
  }
  const stop = publishJobChanges({
    jobs: { onChange } as Jobs,
    realtime: { emitLatest } as Realtime,
  })
  const change = {
    kind: 'test.some',
    state: 'queued',
    progress: 0,
    note: null,
    attempt: 0,
    error: null,
  } as const
  return {
    sent,
    stop,
    tell(news: Partial<JobChange>) {
      for (const listener of listeners) listener({ id: '1', ...change, ...news })
    },
  }
}

/** Everything that a subscriber of the topic hears. */
async function subscribe(url: string): Promise<JobsChange[]> {
  const client: Client = io(url, { transports: ['websocket'], reconnection: false })
  onTestFinished(() => void client.close())
  const heard: JobsChange[] = []
  client.on('job.changed', (change) => heard.push(change))
  expect(await client.timeout(5_000).emitWithAck('subscribe', 'jobs')).toEqual({ ok: true })
  return heard
}
