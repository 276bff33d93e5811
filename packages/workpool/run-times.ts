import type { Call } from './call.ts'
import { type Entry, MapEntry } from './entry.ts'
import type { Mode } from './protocol.ts'

/** Weight of the newest run in a moving average. */
const AVERAGE_WEIGHT = 0.1
/**
 * By how much of the difference a longer run raises the least: the inputs of a task may differ
 * widely.
 */
const LEAST_WEIGHT = 0.02

/** How long each task took in the past, which is the best guess at how long it will take. */
export class RunTimes {
  readonly #alone = new Map<string, number>()
  /** The items of a map are seldom what is run alone. */
  readonly #inChunks = new Map<string, number>()
  /** Whole maps. */
  readonly #maps = new Map<string, number>()
  readonly #leastAlone = new Map<string, number>()
  readonly #leastMaps = new Map<string, number>()
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

  guessMs(entry: Entry): number {
    if (entry instanceof MapEntry) return this.#maps.get(entry.task) ?? this.#overallMs
    const call = entry as Call
    return this.measuredMs(call) ?? this.#overallMs * call.items
  }

  /** About the least that it took of a thread's time lately; 0 for what never ran. */
  leastMs(entry: Entry): number {
    return (entry instanceof MapEntry ? this.#leastMaps : this.#leastAlone).get(entry.task) ?? 0
  }

  learn({ task, mode }: Call, runMs: number, items: number): void {
    const newest = runMs / items
    average(this.#averagesOf(mode), task, newest)
    if (mode === 'one') least(this.#leastAlone, task, newest)
    this.#overallMs += AVERAGE_WEIGHT * (newest - this.#overallMs)
  }

  /** @param ranMs what all chunks of a map took of the threads' time. */
  learnMap(task: string, ranMs: number): void {
    average(this.#maps, task, ranMs)
    least(this.#leastMaps, task, ranMs)
  }

  #averagesOf(mode: Mode) {
    return mode === 'one' ? this.#alone : this.#inChunks
  }
}

function average(times: Map<string, number>, task: string, newest: number) {
  const before = times.get(task) ?? newest
  times.set(task, before + AVERAGE_WEIGHT * (newest - before))
}

function least(times: Map<string, number>, task: string, newest: number) {
  const before = times.get(task) ?? newest
  times.set(task, Math.min(newest, before + LEAST_WEIGHT * (newest - before)))
}
