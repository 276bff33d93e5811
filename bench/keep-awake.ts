import { spawn, spawnSync } from 'node:child_process'
import { end } from './child.ts'

/**
 * Linux's way to run a command only while nothing else wants the core, and to push it aside at once
 * when something does.
 */
const BELOW_ALL_ELSE = ['chrt', '-i', '0']

/** Whether this machine has it: elsewhere cores sleep when they like. */
export const canKeepAwake = spawnSync('chrt', [...BELOW_ALL_ELSE.slice(1), 'true']).status === 0

/**
 * Keeps so many cores from sleeping, by giving them nothing to do all the time. A core that sleeps
 * takes long to wake, on a virtual machine milliseconds, because its host must first find time for
 * it. An idle service pays that with each request and a busy one does not: without this, a
 * comparison of the two measures the host.
 */
export function keepAwake(cores: number): AsyncDisposable {
  const [command = '', ...args] = BELOW_ALL_ELSE
  const spinners = Array.from({ length: canKeepAwake ? cores : 0 }, () =>
    spawn(command, [...args, process.execPath, '--eval', 'for (;;);'], { stdio: 'ignore' }),
  )
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(spinners.map(end))
    },
  }
}
