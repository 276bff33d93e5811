import { task } from '../../src/names.ts'
import { until } from './until.ts'

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
export const look = task<null, Surroundings>('test.look')
/** Counts its runs in shared memory; gives how many there were before this one. */
export const count = task<Int32Array<SharedArrayBuffer>, number>('test.count')
/** Computes for so many milliseconds without asking. */
export const computeFor = task<number, void>('test.compute-for')

/** Hold their thread until released. All give the id of their thread. */
export const holdAsking = task<Cells, number>('test.hold-asking')
export const holdDeaf = task<Cells, number>('test.hold-deaf')
export const spin = task<Cells, never>('test.spin')
/** Ends well, but only once nobody waits for it. */
export const endWhenCancelled = task<Cells, number>('test.end-when-cancelled')
/** Whether it was ever told that it is cancelled, looking until released. */
export const watchCancelled = task<Cells, boolean>('test.watch-cancelled')

export const fail = task<string, never>('test.fail')
export const throwFunction = task<null, never>('test.throw-function')
export const giveFunction = task<null, unknown>('test.give-function')
export const exit = task<number, never>('test.exit')
export const throwLater = task<string, never>('test.throw-later')
export const exhaustMemory = task<null, never>('test.exhaust-memory')
/** A contract that no thread implements. */
export const nowhere = task<null, null>('test.nowhere')
