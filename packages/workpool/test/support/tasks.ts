import { task } from '@offloop/workpool/task'
import { until } from '../../../../test/support/until.ts'

/** Memory that a test shares with its task: whether the task has started, whether it may end. */
export class Latch {
  readonly cells = new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT))

  get started() {
    return Atomics.load(this.cells, STARTED) === 1
  }

  async untilStarted(): Promise<void> {
    await until(() => this.started, 'the task starts')
  }

  release() {
    Atomics.store(this.cells, RELEASED, 1)
    Atomics.notify(this.cells, RELEASED)
  }
}

export const STARTED = 0
export const RELEASED = 1
export type Cells = Latch['cells']

export interface Surroundings {
  threadId: number
  isMainThread: boolean
  environment: string[]
  priority: number
}

export const echo = task<unknown, unknown>('test.echo')
/** Says where it runs. */
export const describeThread = task<null, Surroundings>('test.describe-thread')
export const describeProcess = task<
  null,
  { pid: number; ppid: number; environment: string[]; heapLimitMb: number }
>('test.describe-process')
/** Counts its runs in shared memory; gives how many there were before this one. */
export const count = task<Int32Array<SharedArrayBuffer>, number>('test.count')
/** Computes for so many milliseconds without asking. */
export const computeFor = task<number, void>('test.compute-for')

/** `computeFor`, and gives the milliseconds back. */
export const give = task<number, number>('test.give')
/** The same without holding the thread. */
export const giveLater = task<number, number>('test.give-later')
export const double = task<number, number>('test.double')
/** Joining strings is not commutative: it shows any disorder. */
export const write = task<number, string>('test.write', { join: (left, right) => left + right })
/** The same, after so many milliseconds of computing; a negative number of them fails. */
export const writeAfter = task<{ number: number; ms: number }, string>('test.write-after', {
  join: (left, right) => left + right,
})

export interface Range {
  from: number
  to: number
  /** Fails, or exits, at this number. */
  failAt?: number
  exitAt?: number
}
/** All numbers of a range, which can be cut. */
export const list = task<Range, number[]>('test.list', {
  split: ({ from, to, ...rest }, parts) => {
    const width = Math.ceil((to - from) / parts)
    return Array.from({ length: Math.ceil((to - from) / width) || 0 }, (_, part) => ({
      from: from + part * width,
      to: Math.min(to, from + (part + 1) * width),
      ...rest,
    }))
  },
  join: (left, right) => [...left, ...right],
})

/** Gives what cannot be sent for this number. */
export const giveFunctionAt = task<{ number: number; at: number }, unknown>('test.give-function-at')

/** Writes its place into memory that it shares. */
export const fill = task<
  {
    array: { [place: number]: number | bigint; fill(value: never): unknown }
    value: number | bigint
  },
  void
>('test.fill')
/** Gives its bytes back by moving them, and keeps what is left; `measureKept` gives its length. */
export const moveBack = task<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>('test.move-back')
export const measureKept = task<null, number>('test.measure-kept')
/** Says how far it is after each of so many milliseconds. */
export const progressFor = task<number, void>('test.progress-for')
/** Returns at once, or holds its thread: a short task that suddenly hangs. */
export const blockOrNot = task<Cells | null, number>('test.block-or-not')
/** Counts its runs at its own place in shared memory, for so many milliseconds. */
export const countRun = task<
  { runs: Int32Array<SharedArrayBuffer>; place: number; ms: number },
  void
>('test.count-run')

/** Hold their thread until released. All give the id of their thread. */
export const blockAsking = task<Cells, number>('test.block-asking')
export const blockDeaf = task<Cells, number>('test.block-deaf')
export const spin = task<Cells, never>('test.spin')
/** `spin`, with an array in each turn, and started once V8 has compiled it. */
export const spinOverArrays = task<Cells, never>('test.spin-over-arrays')
/** `spin`, without shared memory. */
export const endlessly = task<null, never>('test.endlessly')
/** Ends well, but only once nobody waits for it. */
export const endWhenCancelled = task<Cells, number>('test.end-when-cancelled')
/** Whether it ever saw that it is cancelled, looking until released. */
export const watchCancelled = task<Cells, boolean>('test.watch-cancelled')

export const fail = task<string, never>('test.fail')
export const throwFunction = task<null, never>('test.throw-function')
export const giveFunction = task<null, unknown>('test.give-function')
export const exit = task<number, never>('test.exit')
export const throwLater = task<string, never>('test.throw-later')
/**
 * Returns at once, and leaves a rejection, an exception or an exit behind, for when `neverEnd` has
 * started.
 */
export const leaveBehind = task<{ kind: 'rejection' | 'exception' | 'exit'; cells: Cells }, string>(
  'test.leave-behind',
)
/** Never ends, and does not occupy the thread. */
export const neverEnd = task<Cells, never>('test.never-end')
/** Computes for so many milliseconds in each of so many pieces. */
export const computePieces = task<{ pieces: number; ms: number }, number>('test.compute-pieces', {
  split: ({ pieces, ms }) => Array.from({ length: pieces }, () => ({ pieces: 1, ms })),
  join: (left, right) => left + right,
})
/** Gives what can be awaited, but is no Promise. */
export const giveThenable = task<unknown, unknown>('test.give-thenable')
export const exhaustMemory = task<null, never>('test.exhaust-memory')
export const growMap = task<null, never>('test.grow-map')
export const growStrings = task<null, never>('test.grow-strings')
/** Ends well; its thread ends a moment later. */
export const exitAfterwards = task<null, null>('test.exit-afterwards')
/** An array in an array in an array, that deep. */
export const nest = task<number, unknown[]>('test.nest')
/** Its thread behaves as if the next message could not be read. */
export const failToRead = task<string, null>('test.fail-to-read')
/** Kills its own process, as native code might. */
export const kill = task<NodeJS.Signals, never>('test.kill')
export const abort = task<null, never>('test.abort')
/** A contract that no thread implements. */
export const nowhere = task<null, null>('test.nowhere')
