import { onTestFinished } from 'vitest'
import { LiveSamples, type OpsSample } from '../../src/ops/live-samples.ts'

/**
 * Samples of more threads than a test can start; `published` is what a client hears that always
 * subscribes.
 */
export function startSamples({
  threads,
  counts = [],
}: {
  threads: number
  counts?: [string, { queued: number; running: number }][]
}) {
  const published: OpsSample[] = []
  const states = Array.from({ length: threads }, (_, index) => ({
    name: `compute-${index + 1}`,
    kind: 'thread' as const,
    busyMs: 0,
    memoryBytes: 100_000_000,
    running: {
      task: 'a.task-with-a-long-name',
      startedAt: 0,
      items: 1,
      progress: undefined,
      requestId: undefined,
    },
  }))
  const samples = new LiveSamples()
  const stop = samples.start({
    processId: 'test',
    metrics: { requestCount: 0 },
    watchdog: { readDelay: () => ({ p50: 0, p99: 0, max: 0, withoutCoreMs: 0 }) },
    compute: {
      queued: 0,
      running: threads,
      workerStates: () => states,
      measureMemory: () => {},
      countItems: () => new Map(counts),
    },
    database: { semaphore: { permits: 10, inUse: 0 }, waiting: 0 },
    realtime: {
      connections: 1,
      hasSubscribers: () => true,
      emitLatest: (_topic, _event, payload) => published.push(payload as OpsSample),
    },
    log: { warn: () => {} },
  })
  onTestFinished(stop)
  return { samples, published }
}
