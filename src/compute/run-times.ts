import type { Call } from './call.ts'

/** Weight of the newest run in a moving average. */
const AVERAGE_WEIGHT = 0.1

/** How long each task took in the past, which is the best guess at how long it will take. */
export class RunTimes {
  readonly #averageMs = new Map<string, number>()
  /** Of all tasks: the guess for one that never ran. */
  #overallMs = 0

  /** Undefined for a task that never ran. */
  measuredMs({ task, items }: Call): number | undefined {
    const averageMs = this.#averageMs.get(task)
    return averageMs === undefined ? undefined : averageMs * items
  }

  guessMs(call: Call): number {
    return this.measuredMs(call) ?? this.#overallMs * call.items
  }

  learn({ task }: Call, runMs: number, items: number): void {
    const newest = runMs / items
    const averageMs = this.#averageMs.get(task) ?? newest
    this.#averageMs.set(task, averageMs + AVERAGE_WEIGHT * (newest - averageMs))
    this.#overallMs += AVERAGE_WEIGHT * (newest - this.#overallMs)
  }
}
