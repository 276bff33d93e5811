import { readlinkSync } from 'node:fs'
import { getPriority } from 'node:os'
import { basename } from 'node:path'
import { isMainThread, threadId } from 'node:worker_threads'
import { implement, type TaskContext } from '../../src/compute/implement.ts'
import { serveTasks } from '../../src/compute/serve-tasks.ts'
import * as tasks from './tasks.ts'
import { type Cells, RELEASED, STARTED } from './tasks.ts'

/** The worker thread of `test/compute`: tasks that behave, and tasks that do not. */
const LOOK_EVERY_MS = 1

implement(tasks.echo, (input) => input)
implement(tasks.look, () => ({
  threadId,
  isMainThread,
  environment: Object.keys(process.env),
  priority: process.platform === 'linux' ? getPriority(Number(basename(readlinkSync('/proc/thread-self')))) : 0,
}))
implement(tasks.count, (counter) => Atomics.add(counter, 0, 1))
implement(tasks.computeFor, (ms) => {
  for (const end = performance.now() + ms; performance.now() < end; );
})

implement(tasks.holdAsking, (cells, context) => {
  holdUntilReleased(cells, () => context.throwIfCancelled())
  return threadId
})
implement(tasks.holdDeaf, (cells) => {
  holdUntilReleased(cells, () => {})
  return threadId
})
implement(tasks.spin, (cells) => {
  Atomics.store(cells, STARTED, 1)
  for (;;);
})
implement(tasks.endWhenCancelled, (cells, context) => {
  Atomics.store(cells, STARTED, 1)
  while (!context.cancelled) Atomics.wait(cells, RELEASED, 0, LOOK_EVERY_MS)
  return threadId
})
implement(tasks.watchCancelled, (cells, context: TaskContext) => {
  let cancelled = false
  holdUntilReleased(cells, () => {
    cancelled ||= context.cancelled
  })
  return cancelled
})

implement(tasks.fail, (message) => {
  throw new RangeError(message)
})
implement(tasks.throwFunction, () => {
  throw () => {}
})
implement(tasks.giveFunction, () => ({ fine: 1, broken: () => {} }))
implement(tasks.exit, (code) => process.exit(code))
implement(tasks.throwLater, (message) => {
  setImmediate(() => {
    throw new Error(message)
  })
  return new Promise<never>(() => {})
})
implement(tasks.exhaustMemory, () => {
  for (const kept: number[][] = []; ; ) kept.push(new Array(10_000).fill(0.5))
})

serveTasks()

function holdUntilReleased(cells: Cells, look: () => void) {
  Atomics.store(cells, STARTED, 1)
  while (Atomics.load(cells, RELEASED) === 0) {
    Atomics.wait(cells, RELEASED, 0, LOOK_EVERY_MS)
    look()
  }
  look()
}
