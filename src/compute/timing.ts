import type { Outcome } from './call.ts'

/** What one message cost: a task, or a chunk of a map. What was refused, or ended while it waited, has none. */
export interface Timing {
  task: string
  /** The name of the thread, or process, that ran it. */
  thread: string
  outcome: Outcome
  /** How many inputs it had. */
  items: number
  /** Milliseconds since the epoch, with fractions. */
  queuedAt: number
  startedAt: number
  endedAt: number
  /** Milliseconds between the call and the task's start. */
  queuedMs: number
  /** Milliseconds from there until the thread was free again. */
  runMs: number
  /** About what was copied or moved to the thread, and back; shared memory counts for nothing. */
  bytesIn: number
  bytesOut: number
}

const BYTES_PER_VALUE = 8
/** Beyond it, the rest of an array is taken to be like its beginning. */
const MAX_SAMPLE = 100
const MAX_DEPTH = 4

/** About how large a message this value makes. Looks at no more than the first hundred members of anything. */
export function bytesOf(value: unknown, depth = 0): number {
  if (typeof value === 'string') return value.length
  if (typeof value !== 'object' || value === null) return BYTES_PER_VALUE
  if (value instanceof ArrayBuffer) return value.byteLength
  if (ArrayBuffer.isView(value)) return value.buffer instanceof ArrayBuffer ? value.byteLength : 0
  if (value instanceof SharedArrayBuffer || depth === MAX_DEPTH) return 0
  if (value instanceof Map) return sum([...value.entries()], depth)
  if (value instanceof Set) return sum([...value], depth)
  return sum(Array.isArray(value) ? value : Object.entries(value), depth)
}

function sum(members: readonly unknown[], depth: number): number {
  const sample = members.slice(0, MAX_SAMPLE)
  const bytes = sample.reduce<number>((total, member) => total + bytesOf(member, depth + 1), 0)
  return sample.length === 0 ? 0 : Math.round((bytes * members.length) / sample.length)
}
