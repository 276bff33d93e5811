import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { machine } from './machine.ts'

/** Linux's way to keep a process on some cores. */
const ON_CORES = ['taskset', '-c']

/** Whether servers can have a core to themselves here: it takes two cores, and Linux. */
export const canPin = machine.cores > 1 && spawnSync('taskset', ['-c', '0', 'true']).status === 0

/** What starts a command on core 0, which is the server's; nothing where that cannot be had. */
export const onServerCore: string[] = canPin ? [...ON_CORES, '0'] : []

/**
 * Leaves core 0 to the servers: this process, and what it starts from here on, the database among
 * it, use the others.
 */
export const leaveServerCore = () => keepTo(`1-${machine.cores - 1}`)

/** Ends that. */
export const useAllCores = () => keepTo(`0-${machine.cores - 1}`)

function keepTo(cores: string) {
  if (canPin) spawnSync('taskset', ['-a', '-c', '-p', cores, String(process.pid)])
}

/**
 * The processor time that all threads of a process have had, in milliseconds; NaN where Linux does
 * not count it.
 */
export function cpuMs(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/task`).reduce(
      (sum, thread) => sum + threadCpuMs(pid, thread),
      0,
    )
  } catch {
    return Number.NaN
  }
}

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

/** The kernel counts in nanoseconds. */
const threadCpuMs = (pid: number, thread: string) =>
  Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]) / 1e6

const PAGE_KIB = 4

/** The memory that a process is resident with, in MiB; NaN where that cannot be read. */
export function residentMiB(pid: number): number {
  try {
    return (Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_KIB) / 1_024
  } catch {
    return Number.NaN
  }
}
