import { readlinkSync } from 'node:fs'
import { getPriority } from 'node:os'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { getHeapStatistics } from 'node:v8'
import { isMainThread, threadId, workerData } from 'node:worker_threads'
import type { ThreadData } from '@offloop/workpool/protocol'
import { implement, type TaskContext } from '@offloop/workpool/task'
import { serveTasks } from '@offloop/workpool/worker-main'
import * as tasks from './tasks.ts'
import { type Cells, RELEASED, STARTED } from './tasks.ts'

/** The worker thread of `test/compute`: tasks that behave, and tasks that do not. */
const LOOK_EVERY_MS = 1
const TURNS_UNTIL_COMPILED = 1_000_000

implement(tasks.echo, (input) => input)
implement(tasks.describeThread, () => ({
  threadId,
  isMainThread,
  environment: Object.keys(process.env),
  priority:
    process.platform === 'linux'
      ? getPriority(Number(basename(readlinkSync('/proc/thread-self'))))
      : 0,
}))
implement(tasks.describeProcess, () => ({
  pid: process.pid,
  ppid: process.ppid,
  environment: Object.keys(process.env),
  heapLimitMb: getHeapStatistics().heap_size_limit / 2 ** 20,
}))
implement(tasks.count, (counter) => Atomics.add(counter, 0, 1))
implement(tasks.computeFor, compute)
implement(tasks.give, (ms) => {
  compute(ms)
  return ms
})
implement(tasks.giveLater, (ms) => sleep(ms, ms))
implement(tasks.double, (number) => number * 2)
implement(tasks.writeAfter, ({ number, ms }) => {
  if (ms < 0) throw new RangeError('There is no such time')
  compute(ms)
  return `${number} `
})
implement(tasks.write, String)
implement(tasks.list, ({ from, to, failAt, exitAt }) => {
  const numbers: number[] = []
  for (let number = from; number < to; number++) {
    if (number === failAt) throw new RangeError(`No ${number}`)
    if (number === exitAt) process.exit(1)
    numbers.push(number)
  }
  return numbers
})
implement(tasks.giveFunctionAt, ({ number, at }) => (number === at ? () => {} : number))

implement(tasks.fill, ({ array, value }) => void array.fill(value as never))
let kept: Uint8Array | undefined
implement(tasks.moveBack, (bytes, context) => {
  kept = bytes
  return context.transfer(bytes, [bytes.buffer])
})
implement(tasks.measureKept, () => kept?.byteLength ?? -1)
implement(tasks.progressFor, (ms, context) => {
  for (let done = 0; done < ms; done++) {
    compute(1)
    context.progress((done + 1) / ms)
  }
})
implement(tasks.countRun, ({ runs, place, ms }) => {
  Atomics.add(runs, place, 1)
  compute(ms)
})

implement(tasks.blockAsking, (cells, context) => {
  blockUntilReleased(cells, () => context.throwIfCancelled())
  return threadId
})
implement(tasks.blockDeaf, (cells) => {
  blockUntilReleased(cells, () => {})
  return threadId
})
implement(tasks.blockOrNot, (cells) => {
  if (cells) blockUntilReleased(cells, () => {})
  return threadId
})
implement(tasks.spin, (cells) => {
  Atomics.store(cells, STARTED, 1)
  for (;;);
})
const lastRow = { numbers: [0] }
implement(tasks.spinOverArrays, (cells) => {
  for (let turn = 0; ; turn++) {
    lastRow.numbers = new Array(100).fill(turn)
    if (turn === TURNS_UNTIL_COMPILED) Atomics.store(cells, STARTED, 1)
  }
})
implement(tasks.endlessly, () => {
  for (;;);
})
implement(tasks.endWhenCancelled, (cells, context) => {
  Atomics.store(cells, STARTED, 1)
  while (!context.cancelled) Atomics.wait(cells, RELEASED, 0, LOOK_EVERY_MS)
  return threadId
})
implement(tasks.watchCancelled, (cells, context: TaskContext) => {
  let cancelled = false
  blockUntilReleased(cells, () => {
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
implement(tasks.leaveBehind, ({ kind, cells }) => {
  const fail = () => {
    if (kind === 'exit') process.exit(5)
    throw new Error('left behind')
  }
  if (kind === 'rejection') void untilStarted(cells).then(fail)
  else void untilStarted(cells).then(() => setImmediate(fail))
  return 'fine'
})
implement(tasks.neverEnd, (cells) => {
  Atomics.store(cells, STARTED, 1)
  return new Promise<never>(() => {})
})
implement(tasks.computePieces, ({ pieces, ms }) => {
  compute(pieces * ms)
  return pieces
})
implement(tasks.giveThenable, (value) => {
  const settled = value === 'fails' ? Promise.reject(new Error('It fails')) : Promise.resolve(value)
  // biome-ignore lint/suspicious/noThenProperty: that is what it is for
  return { then: settled.then.bind(settled) }
})
implement(tasks.exhaustMemory, () => {
  for (const kept: number[][] = []; ; ) kept.push(new Array(10_000).fill(0.5))
})
implement(tasks.growMap, () => {
  for (const kept = new Map<string, object>(); ; ) kept.set(`key ${kept.size}`, { size: kept.size })
})
implement(tasks.growStrings, () => {
  for (const kept: string[] = []; ; ) kept.push(`${'x'.repeat(1_000)}${kept.length}`.toUpperCase())
})
implement(tasks.exitAfterwards, () => {
  setImmediate(() => process.exit(0))
  return null
})
implement(tasks.nest, (depth) => {
  let nested: unknown[] = []
  for (let level = 1; level < depth; level++) nested = [nested]
  return nested
})
implement(tasks.failToRead, (message) => {
  setImmediate(() => (workerData as ThreadData).port.emit('messageerror', new Error(message)))
  return new Promise<null>(() => {})
})
implement(tasks.kill, (signal) => {
  process.kill(process.pid, signal)
  return new Promise<never>(() => {})
})
implement(tasks.abort, () => process.abort())

serveTasks()

function compute(ms: number) {
  for (const end = performance.now() + ms; performance.now() < end; );
}

async function untilStarted(cells: Cells) {
  while (Atomics.load(cells, STARTED) === 0) await sleep(LOOK_EVERY_MS)
}

function blockUntilReleased(cells: Cells, check: () => void) {
  Atomics.store(cells, STARTED, 1)
  while (Atomics.load(cells, RELEASED) === 0) {
    Atomics.wait(cells, RELEASED, 0, LOOK_EVERY_MS)
    check()
  }
  check()
}
