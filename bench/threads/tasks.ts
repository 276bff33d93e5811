import { task } from '@offloop/workpool/task'

/** As little as a task can do: what it costs is what sending it costs. */
export const double = task<number, number>('bench.double')

/** Ends when it is asked to. */
export const untilCancelled = task<null, never>('bench.until-cancelled')
/** Does not even ask. */
export const neverAsk = task<null, never>('bench.never-ask')
/** Takes its thread down, with an exit code that says whose it was. */
export const endThread = task<number, never>('bench.end-thread')

export interface Slice {
  values: Float64Array
  from: number
  to: number
}

export const sum = task<Slice, number>('bench.sum', { join: (a, b) => a + b })

/**
 * The function behind `sum`, for the event loop's own turn, too. A sum that starts as the whole
 * number 0 is one that V8 may keep in an object of its own, made anew for every addition: eight
 * times as slow. -0 is none, and adds nothing.
 */
export function addSlice({ values, from, to }: Slice): number {
  let total = -0
  for (let index = from; index < to; index++) total += values[index] as number
  return total
}
