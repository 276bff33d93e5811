import { setTimeout as sleep } from 'node:timers/promises'
import { DeadlineError, OverloadedError } from '@offloop/workpool/errors'
import type { Pool } from '@offloop/workpool/pool'
import { atLeast, atMost } from '../support/bench.ts'
import { MIB } from '../support/memory-growth.ts'
import { type Measure, openCompute } from './measure.ts'
import { double, endThread, neverAsk, untilCancelled } from './tasks.ts'

const SETTINGS = { tasks: 1_000, threads: 4, withinMs: 4_000 } as const

/** What a task was to come to, and whether it did. */
interface Case {
  run: (compute: Pool) => Promise<unknown>
  isRight: (result: PromiseSettledResult<unknown>) => boolean
}

/**
 * A third of all tasks is cancelled at a random moment, a tenth times out, a tenth crashes its
 * thread.
 */
export const measure: Measure = async (started) => {
  const compute = started.use(await openCompute(SETTINGS.threads, { maxQueued: SETTINGS.tasks }))
  // As in a service that has run for a while: compiled, and with the memory that it needs.
  await storm(compute)
  const before = await settledMemory()
  const wrong = await storm(compute)
  const growth = (await settledMemory()) / before - 1
  const threads = await countThreads(compute)
  return {
    title: `${SETTINGS.tasks} tasks, of which a third is cancelled, a tenth late, and a tenth crashes its thread`,
    rows: [{ wrong, threads, memoryBeforeMiB: before / MIB, growth }],
    targets: [
      atMost('Storm: tasks that settled in another way than they should', wrong, 0),
      atLeast('Storm: threads afterwards', threads, SETTINGS.threads),
      atMost('Storm: growth of resident memory, %', 100 * growth, 10),
    ],
    figures: { settings: SETTINGS, wrong, threads, memoryBefore: before, growth },
  }
}

/** Gives how many settled wrongly. */
async function storm(compute: Pool): Promise<number> {
  const cases = Array.from({ length: SETTINGS.tasks }, (_, index) => caseOf(index))
  const results = await Promise.allSettled(cases.map(({ run }) => run(compute)))
  while (compute.running + compute.queued > 0) await sleep(10)
  return cases.filter(
    ({ isRight }, index) => !isRight(results[index] as PromiseSettledResult<unknown>),
  ).length
}

function caseOf(index: number): Case {
  const place = index % 30
  const endless = index % 2 === 0 ? untilCancelled : neverAsk
  if (place < 10) {
    const reason = new Error(`cancelled ${index}`)
    return {
      run: (compute) =>
        compute.run(endless, null, { signal: abortWithin(SETTINGS.withinMs, reason) }),
      isRight: (result) => result.status === 'rejected' && result.reason === reason,
    }
  }
  if (place < 13)
    return {
      run: (compute) =>
        compute.run(endless, null, { timeoutMs: 1 + Math.random() * SETTINGS.withinMs }),
      // Refused, where it is known by then that it could not start in time.
      isRight: (result) =>
        result.status === 'rejected' &&
        (result.reason instanceof DeadlineError || result.reason instanceof OverloadedError),
    }
  if (place < 16)
    return {
      run: (compute) => compute.run(endThread, index),
      isRight: (result) =>
        result.status === 'rejected' &&
        result.reason.message.endsWith(`exited with code ${index % 256}`),
    }
  return {
    run: (compute) => compute.run(double, index),
    isRight: (result) => result.status === 'fulfilled' && result.value === 2 * index,
  }
}

function abortWithin(ms: number, reason: Error): AbortSignal {
  const controller = new AbortController()
  setTimeout(() => controller.abort(reason), Math.random() * ms)
  return controller.signal
}

/** How many threads run something at the same time. */
async function countThreads(compute: Pool): Promise<number> {
  const controller = new AbortController()
  const all = Array.from({ length: 2 * SETTINGS.threads }, () =>
    compute.run(untilCancelled, null, { signal: controller.signal }).catch(() => {}),
  )
  await sleep(1_000)
  const threads = compute.running
  controller.abort()
  await Promise.all(all)
  return threads
}

async function settledMemory(): Promise<number> {
  for (let pass = 0; pass < 5; pass++) {
    globalThis.gc?.()
    await sleep(100)
  }
  return process.memoryUsage.rss()
}
