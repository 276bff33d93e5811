import type { Call } from './call.ts'
import type { Mode } from './protocol.ts'

/** Weight of the newest run in a moving average. */
const AVERAGE_WEIGHT = 0.1

/** How long each task took in the past, which is the best guess at how long it will take. */
export class RunTimes {
  readonly #alone = new Map<string, number>()
  /** The items of a map are seldom what is run alone. */
  readonly #inChunks = new Map<string, number>()
  /** Of all tasks: the guess for one that never ran. */
  #overallMs = 0

  /** Undefined for a task that never ran. */
  msPerItem(task: string, mode: Mode): number | undefined {
    return this.#averagesOf(mode).get(task)
  }

  /** Undefined for a task that never ran. */
  measuredMs({ task, mode, items }: Call): number | undefined {
    const averageMs = this.msPerItem(task, mode)
    return averageMs === undefined ? undefined : averageMs * items
  }

  guessMs(call: Call): number {
    return this.measuredMs(call) ?? this.#overallMs * call.items
  }

  learn({ task, mode }: Call, runMs: number, items: number): void {
    const newest = runMs / items
    const averageMs = this.msPerItem(task, mode) ?? newest
    this.#averagesOf(mode).set(task, averageMs + AVERAGE_WEIGHT * (newest - averageMs))
    this.#overallMs += AVERAGE_WEIGHT * (newest - this.#overallMs)
  }

  #averagesOf(mode: Mode) {
    return mode === 'one' ? this.#alone : this.#inChunks
  }
}
