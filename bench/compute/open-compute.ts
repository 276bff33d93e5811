import { Compute, type ComputeOptions } from '@offloop/workpool/compute'

/** Our threads with the benchmark's tasks, all of them started. */
export const openCompute = (
  threads: number,
  options: Pick<ComputeOptions, 'maxQueued' | 'onTiming'> = {},
): Promise<Compute> =>
  Compute.open({
    entry: new URL('./tasks-thread.ts', import.meta.url),
    threads,
    minThreads: threads,
    ...options,
  })
