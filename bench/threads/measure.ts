import { Pool, type PoolOptions } from '@offloop/workpool/pool'
import type { Table, Target } from '../support/bench.ts'

/** What a file `NAME.threads.ts` exports as `measure`. It puts what it starts on the stack. */
export type Measure = (started: AsyncDisposableStack) => Promise<Measured>

export interface Measured extends Table {
  targets: Target[]
  /** For the file of results. */
  figures: object
}

/** The bench's threads, all of them started. */
export const openCompute = (
  threads: number,
  options: Pick<Partial<PoolOptions>, 'entry' | 'maxQueued' | 'onTiming'> = {},
): Promise<Pool> =>
  Pool.open({
    entry: new URL('./thread.ts', import.meta.url),
    threads,
    minThreads: threads,
    ...options,
  })
