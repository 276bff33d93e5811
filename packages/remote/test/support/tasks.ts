import { task } from '@offloop/workpool/task'

/** Never end; the one asks whether it is cancelled. */
export const spinAsking = task<null, never>('remote.spin-asking')
export const spinDeaf = task<null, never>('remote.spin-deaf')
/** Gives the number back, but ends each process that is not spared. */
export const killOthers = task<
  { number: number; ms: number; kills: boolean; spared: number },
  number
>('remote.kill-others')
/** So many zeros, after some milliseconds. */
export const giveBytes = task<{ bytes: number; ms: number }, Uint8Array>('remote.give-bytes')
/** Gives the length, after some milliseconds. */
export const measure = task<{ bytes: Uint8Array; ms: number }, number>('remote.measure')
/** Gives what it got, after some milliseconds. */
export const echoAfter = task<{ value: unknown; ms: number }, unknown>('remote.echo-after')
/** Gives its bytes' kind, and shared memory for shared memory. */
export const giveShared = task<null, Int32Array>('remote.give-shared')
/** Reports progress as it computes for so many milliseconds. */
export const progressFor = task<number, string>('remote.progress-for')
