import { readFileSync, writeFileSync } from 'node:fs'

/** The most memory that a process was resident with since `forgetPeak`, in MiB; Linux only. */
export const peakMiB = (pid: number) => fieldOf(pid, 'VmHWM')

export function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5')
}

function fieldOf(pid: number, field: string): number {
  const kib = readFileSync(`/proc/${pid}/status`, 'utf8').match(new RegExp(`^${field}:\\s+(\\d+)`, 'm'))?.[1]
  return Number(kib) / 1024
}
