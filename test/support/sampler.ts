import type { Compute } from '@offloop/workpool/compute'
import { onTestFinished } from 'vitest'
import type { Database } from '../../src/db/database.ts'
import { openLog } from '../../src/log.ts'
import type { OpsSample } from '../../src/ops/contract.ts'
import { Sampler } from '../../src/ops/sampler.ts'
import { Spans } from '../../src/ops/spans.ts'
import type { Realtime } from '../../src/realtime/realtime.ts'

/**
 * A sampler of more threads than a test can start; `samples` is what somebody who always listens
 * hears.
 */
export function openSampler({ threads }: { threads: number }) {
  const samples: OpsSample[] = []
  const states = Array.from({ length: threads }, (_, index) => ({
    name: `compute-${index + 1}`,
    task: 'a.task-with-a-long-name',
  }))
  const sampler = new Sampler({
    compute: { queued: 0, running: threads, threadStates: () => states } as unknown as Compute,
    database: { semaphore: { permits: 10, inUse: 0 }, waiting: 0 } as unknown as Database,
    realtime: {
      connections: 1,
      hasSubscribers: () => true,
      emitLatest: (_topic: string, { name }: { name: string }, payload: OpsSample) =>
        name === 'ops.sample' && samples.push(payload),
    } as unknown as Realtime,
    spans: new Spans(),
    log: openLog({ level: 'silent', format: 'json' }),
  })
  onTestFinished(() => sampler[Symbol.dispose]())
  return { sampler, samples }
}
