import { readFileSync, writeFileSync } from 'node:fs'

/**
 * The most memory that a process and its children were resident with since `forgetPeak`, in MiB;
 * Linux only.
 */
export const peakMiB = (pid: number) =>
  withChildren(pid).reduce((sum, each) => sum + ownPeakMiB(each), 0)

export function forgetPeak(pid: number): void {
  for (const each of withChildren(pid)) writeFileSync(`/proc/${each}/clear_refs`, '5')
}

function withChildren(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter(Boolean)
  return [pid, ...children.map(Number)]
}

function ownPeakMiB(pid: number): number {
  const kib = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmHWM:\s+(\d+)/m)?.[1]
  return Number(kib) / 1024
}
