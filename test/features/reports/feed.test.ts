import { randomUUID } from 'node:crypto'
import type { JobChange } from '@offloop/jobs/job'
import { expect, onTestFinished, test, vi } from 'vitest'
import type { Deps } from '../../../src/feature.ts'
import { buildReport, reportFinished, toTopic } from '../../../src/features/reports/contract.ts'
import { publishReports } from '../../../src/features/reports/feed.ts'
import type { RelayedEvent } from '../../../src/realtime/relay.ts'

/** What this process reads of a report, and what others publish of it. */
function useFeed() {
  vi.useFakeTimers()
  onTestFinished(() => void vi.useRealTimers())
  const id = randomUUID()
  const emit = vi.fn()
  let read: (change: JobChange, isOwn: boolean) => void = () => {}
  let receive: (event: RelayedEvent) => void = () => {}
  const jobs = {
    onChange(listener: typeof read) {
      read = listener
      return () => {}
    },
  }
  const realtime = {
    emit,
    isRelaying: true,
    hasSubscribers: () => true,
    onRelayed(listener: typeof receive) {
      receive = listener
      return () => {}
    },
  }
  publishReports({ jobs, realtime } as unknown as Deps)
  const kind = buildReport.name
  const change = { id, kind, progress: 0, note: null, attempt: 1, error: null }
  const topic = toTopic(id)
  return {
    ended: [topic, reportFinished, { id, state: 'failed' }, 'local'],
    emit,
    readFailed: () => read({ ...change, state: 'failed' }, false),
    relay: (state: string) =>
      receive({ topic, name: 'any', payload: { id, state }, latest: false }),
  }
}

test('an end that no other process publishes is published here', () => {
  const { readFailed, relay, emit, ended } = useFeed()
  relay('running')
  readFailed()
  expect(emit).not.toHaveBeenCalled()
  vi.advanceTimersByTime(1_000)
  expect(emit.mock.calls).toEqual([ended])
})

test('an end is not published any more once the report is retried', () => {
  const { readFailed, relay, emit } = useFeed()
  relay('running')
  readFailed()
  relay('failed')
  relay('queued')
  relay('running')
  vi.advanceTimersByTime(1_000)
  expect(emit).not.toHaveBeenCalled()
})
