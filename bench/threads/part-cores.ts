import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { machine } from '../support/machine.ts'

/**
 * Gives the event loop the first core to itself, and all threads and child processes that there are
 * by now the others. Which core the kernel wakes a thread on differs from one moment to the next,
 * and counts for more than any pool: to the event loop's own and back takes a quarter of the time
 * that it takes to another that sleeps, which is what offloading is about.
 *
 * @returns whether it could: on Linux, with more than one core.
 */
export function partCores(): boolean {
  if (process.platform !== 'linux' || machine.cores === 1) return false
  const pin = (pid: number, ...args: string[]) =>
    spawnSync('taskset', ['--cpu-list', '--pid', ...args, `${pid}`]).status === 0
  const others = `1-${machine.cores - 1}`
  const children =
    readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8').match(/\d+/g) ?? []
  const all = [process.pid, ...children.map(Number)]
  return all.every((pid) => pin(pid, '--all-tasks', others)) && pin(process.pid, '0')
}
