import type { z } from '@hono/zod-openapi'
import type { JobChange } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import { io, type Socket } from 'socket.io-client'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { ServerEvents } from '../../../src/feature.ts'
import type { features } from '../../../src/features/index.ts'
import { jobsAdmin } from '../../../src/features/jobs-admin/routes.ts'
import type { ClientEvents, Realtime } from '../../../src/realtime/realtime.ts'
import { OPERATOR_AUTH } from '../../support/operator.ts'
import { accept, untilFinished } from '../../support/reports.ts'
import { useService } from '../../support/service.ts'
import { until } from '../../support/until.ts'

const [jobChanged] = jobsAdmin.events

type JobsChange = z.infer<typeof jobChanged.payload>
type Client = Socket<ServerEvents<typeof features>, ClientEvents>

// feature: reports
describe('job.changed', () => {
  test('is sent to subscribers from the queue to the end of a job', async () => {
    const { url } = await useService()
    const received = await subscribe(url)
    const { id } = await accept(url, 'a,b\n1,2\n')
    await untilFinished(url, id)
    const updates = () => received.flatMap(({ jobs }) => jobs).filter((job) => job.id === id)
    await until(() => updates().at(-1)?.state === 'succeeded', 'its end is published')
    expect(updates().at(-1)).toEqual({
      id,
      kind: 'report.build',
      state: 'succeeded',
      progress: 1,
      note: null,
      attempt: 1,
      error: null,
    })
  })
})
// /feature

describe('a change that another process made', () => {
  test('is published here only: the other one publishes it, too', () => {
    const { change, sent, reaches } = useFeed()
    change({ id: '1', state: 'cancelled' }, false)
    change({ id: '2' })
    vi.advanceTimersByTime(200)
    expect(sent.map(({ jobs }) => jobs.map(({ id }) => id))).toEqual([['1'], ['2']])
    expect(reaches).toEqual(['local', 'all'])
  })
})

describe('many changes at once', () => {
  test('are published once in 200 ms: the latest of each job, and that there were more', () => {
    const { change, sent } = useFeed()
    for (let n = 0; n < 1_000; n++)
      for (const state of ['queued', 'running', 'succeeded'] as const) change({ id: `${n}`, state })
    change({ id: '990', state: 'queued' })
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

  test('leave nothing behind: the next message has what came after it', () => {
    const { change, sent } = useFeed()
    for (let n = 0; n < 50; n++) change({ id: `${n}` })
    vi.advanceTimersByTime(200)
    change({ id: '50' })
    vi.advanceTimersByTime(200)
    expect(sent[1]).toMatchObject({ jobs: [{ id: '50' }], more: false })
  })

  test('are not published once the feed has ended', () => {
    const { change, sent, stop } = useFeed()
    change({ id: '1' })
    stop()
    change({ id: '2' })
    vi.advanceTimersByTime(1_000)
    expect(sent).toEqual([])
  })
})

/** The feed alone, on a clock of the test's, with what it sends. */
function useFeed() {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const listeners = new Set<(change: JobChange, isOwn: boolean) => void>()
  const sent: JobsChange[] = []
  const reaches: string[] = []
  const onChange: Jobs['onChange'] = (listener) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  const emitLatest: Realtime['emitLatest'] = (_, { name }, payload, reach = 'all') => {
    expect(name).toBe(jobChanged.name)
    sent.push(payload as JobsChange)
    reaches.push(reach)
  }
  const stop = jobsAdmin.start({
    jobs: { onChange } as Jobs,
    realtime: { emitLatest } as Realtime,
  })
  const fresh = {
    kind: 'test.some',
    state: 'queued',
    progress: 0,
    note: null,
    attempt: 0,
    error: null,
  } as const
  return {
    sent,
    reaches,
    stop,
    change(fields: Partial<JobChange>, isOwn = true) {
      for (const listener of listeners) listener({ id: '1', ...fresh, ...fields }, isOwn)
    },
  }
}

/** Everything that a subscriber of the topic receives. */
async function subscribe(url: string): Promise<JobsChange[]> {
  const client: Client = io(url, {
    transports: ['websocket'],
    reconnection: false,
    ...OPERATOR_AUTH,
  })
  onTestFinished(() => void client.close())
  const received: JobsChange[] = []
  client.on('job.changed', (change) => received.push(change))
  expect(await client.timeout(5_000).emitWithAck('subscribe', 'jobs')).toEqual({ ok: true })
  return received
}
