import { spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { end } from './child.ts'
import { machine } from './machine.ts'

/** Linux runs such a process only while nothing else wants the core. */
const IDLE_POLICY = ['chrt', '-i', '0']

/** Whether servers can have a core to themselves: it takes two cores, and Linux. */
export const canPin = machine.cores > 1 && spawnSync('taskset', ['-c', '0', 'true']).status === 0

/** Whether this machine can keep its cores awake: elsewhere they sleep when they like. */
export const canKeepAwake = spawnSync('chrt', [...IDLE_POLICY.slice(1), 'true']).status === 0

/** What starts a command on core 0, which is the servers'; nothing where that cannot be had. */
export const onServerCore: string[] = canPin ? ['taskset', '-c', '0'] : []

/** Leaves core 0 to the servers: this process and what it starts from here on use the others. */
export const leaveServerCore = () => useCores(`1-${machine.cores - 1}`)

/** Ends that. */
export const useAllCores = () => useCores(`0-${machine.cores - 1}`)

function useCores(cores: string) {
  if (canPin) spawnSync('taskset', ['-a', '-c', '-p', cores, String(process.pid)])
}

/**
 * Keeps that many cores from sleeping, by an empty loop that gives way to anything else. A core that
 * sleeps takes long to wake, on a virtual machine milliseconds: an idle service would pay that with
 * each request and a busy one not, so that a comparison of the two would measure the host.
 */
export function keepAwake(cores: number): AsyncDisposable {
  const [command = '', ...args] = [...IDLE_POLICY, process.execPath, '--eval', 'for (;;);']
  const loops = Array.from({ length: canKeepAwake ? cores : 0 }, () =>
    spawn(command, args, { stdio: 'ignore' }),
  )
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(loops.map(end))
    },
  }
}

/** The processor time of all threads of a process in milliseconds; NaN where Linux is not. */
export function cpuMs(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/task`).reduce(
      (sum, thread) => sum + threadCpuMs(pid, Number(thread)),
      0,
    )
  } catch {
    return Number.NaN
  }
}

/** The processor time of one thread: that of the event loop's has the number of its process. */
export const threadCpuMs = (pid: number, thread = pid) =>
  Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]) / 1e6

const IDLE_SHARE = 0.1
const IDLE_POLL_MS = 100
const IDLE_TIMEOUT_MS = 30_000

/**
 * Resolves when a process has nothing to do, or after half a minute: what clients that left had
 * asked for may take long.
 */
export async function untilIdle(pid: number): Promise<void> {
  const deadline = performance.now() + IDLE_TIMEOUT_MS
  let isBusy = true
  while (isBusy && performance.now() < deadline) {
    const [since, usedMs] = [performance.now(), cpuMs(pid)]
    await sleep(IDLE_POLL_MS)
    isBusy = cpuMs(pid) - usedMs > IDLE_SHARE * (performance.now() - since)
  }
}

const PAGE_KIB = 4

/** The resident memory of a process in MiB; NaN where that cannot be read. */
export function residentMiB(pid: number): number {
  try {
    return (Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_KIB) / 1_024
  } catch {
    return Number.NaN
  }
}
