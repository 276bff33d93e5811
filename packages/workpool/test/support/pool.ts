import type { Worker } from 'node:worker_threads'
import type { Timing } from '@offloop/workpool/pool'
import { Pool, type PoolOptions, type RunOptions } from '@offloop/workpool/pool'
import type { Task } from '@offloop/workpool/task'
import { expect, onTestFinished } from 'vitest'
import { blockDeaf, type Cells, Latch } from './tasks.ts'

const MAX_BLOCK_MS = 10_000

/** Threads of their own for a test, with all that they report; they end with it. */
export async function usePool(options: Partial<PoolOptions> = {}) {
  const timings: Timing[] = []
  const crashes: string[] = []
  const crashedTasks: (string | undefined)[] = []
  const pool = await Pool.open({
    threads: 2,
    entry: new URL('./worker.ts', import.meta.url),
    onTiming: (timing) => timings.push(timing),
    onCrash({ message }, _thread, task) {
      crashes.push(message)
      crashedTasks.push(task)
    },
    ...options,
  })
  onTestFinished(() => pool[Symbol.asyncDispose]())
  return { pool, timings, crashes, crashedTasks }
}

/** Occupies a thread, until the latch is released unless the task says otherwise. */
export async function occupy(
  pool: Pool,
  { task = blockDeaf, ...options }: RunOptions & { task?: Task<Cells, unknown> } = {},
) {
  const latch = new Latch()
  const occupied = pool.run(task, latch.cells, options)
  occupied.catch(() => {})
  await latch.untilStarted()
  return { occupied, latch }
}

/** As many tasks as there should be threads run at the same time, each on one of its own. */
export async function expectFullSize(pool: Pool, threads: number) {
  const holds = await Promise.all(Array.from({ length: threads }, () => occupy(pool)))
  expect([pool.running, pool.queued]).toEqual([threads, 0])
  for (const { latch } of holds) latch.release()
  const threadIds = await Promise.all(holds.map(({ occupied }) => occupied))
  expect(new Set(threadIds).size).toBe(threads)
}

export function cancellation() {
  const controller = new AbortController()
  const reason = new Error('Nobody waits any more')
  return { signal: controller.signal, reason, abort: () => controller.abort(reason) }
}

/** The error that a promise rejects with. */
export const failure = (promise: PromiseLike<unknown>): PromiseLike<Error> =>
  promise.then(
    (output) => expect.unreachable(`Succeeded with ${output}`),
    (error) => error,
  )

/** Every thread started from here on. */
export function watchWorkers() {
  const workers: Worker[] = []
  const onWorker = (worker: Worker) => workers.push(worker)
  process.on('worker', onWorker)
  onTestFinished(() => void process.off('worker', onWorker))
  return workers
}

export const isAlive = ({ threadId }: Worker) => threadId !== -1

export const newCounter = () => new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))

export function blockEventLoop(ms: number) {
  const end = performance.now() + ms
  blockEventLoopUntil(() => performance.now() >= end)
}

/**
 * What runs by then runs where it was sent: nothing is taken back meanwhile.
 *
 * @throws Error after 10 s: no test runner could end it.
 */
export function blockEventLoopUntil(check: () => boolean) {
  for (const deadline = performance.now() + MAX_BLOCK_MS; !check(); )
    if (performance.now() > deadline)
      throw new Error(`Not within ${MAX_BLOCK_MS} ms of blocking the event loop`)
}
