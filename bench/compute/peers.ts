import { Piscina } from 'piscina'
import { FixedThreadPool } from 'poolifier'
import { machine } from '../machine.ts'

/**
 * Both with as many threads as there are cores and, where nothing else is said, with their
 * defaults. They end with the process: poolifier's `destroy()` sometimes never resolves.
 */
const threads = machine.cores

export function openPiscina(concurrentTasksPerWorker = 1): Piscina<number, number> {
  const filename = new URL('./piscina-worker.ts', import.meta.url).href
  return new Piscina({
    filename,
    minThreads: threads,
    maxThreads: threads,
    concurrentTasksPerWorker,
  })
}

export function openPoolifier(): FixedThreadPool<number, number> {
  return new FixedThreadPool(threads, new URL('./poolifier-worker.ts', import.meta.url).pathname)
}
