import { spawnSync } from 'node:child_process'
import { machine } from '../machine.ts'

/**
 * Gives the event loop the first core to itself, and all threads that there are by now the others. Which core the kernel
 * wakes a thread on differs from one moment to the next, and counts for more than any pool: to the event loop's own and
 * back takes a quarter of the time that it takes to another that sleeps, which is what offloading is about.
 *
 * @returns whether it could: on Linux, with more than one core.
 */
export function partCores(): boolean {
  const pin = (...args: string[]) => spawnSync('taskset', ['--cpu-list', '--pid', ...args, `${process.pid}`]).status === 0
  return machine.cores > 1 && pin('--all-tasks', `1-${machine.cores - 1}`) && pin('0')
}
