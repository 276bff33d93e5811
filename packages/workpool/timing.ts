import type { Call, Outcome } from './call.ts'
import type { DoneMessage } from './protocol.ts'

/**
 * What one message cost: a task, or a chunk of a map. What was refused, or ended while it waited,
 * has none.
 */
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
  /** As the caller gave it. */
  requestId: string | undefined
}

/** What is known of a run that has ended, in whatever way. */
export type Ended = Pick<DoneMessage, 'startedAt' | 'runMs'> & { items?: number; output?: unknown }

export function timingOf(
  call: Call,
  thread: string,
  { startedAt, runMs, items = call.items, output }: Ended,
): Timing {
  const { task, outcome = 'crashed', queuedAt, bytesIn } = call
  return {
    task,
    thread,
    outcome,
    items,
    queuedAt,
    startedAt,
    endedAt: startedAt + runMs,
    queuedMs: startedAt - queuedAt,
    runMs,
    bytesIn,
    bytesOut: output === undefined ? 0 : bytesOf(output),
    requestId: call.options.requestId,
  }
}

const BYTES_PER_VALUE = 8
/** How many members of a collection are looked at: all others are taken to be like them. */
const SAMPLE = 24
/**
 * In collections within collections so many times fewer, so that looking takes well under a
 * millisecond.
 */
const SAMPLE_DIVISOR = 2
const MAX_DEPTH = 4

/** About how large a message this value makes, judged by the first members of large collections. */
export function bytesOf(value: unknown, depth = 0): number {
  if (typeof value === 'string') return value.length
  if (typeof value !== 'object' || value === null) return BYTES_PER_VALUE
  if (ArrayBuffer.isView(value)) return value.buffer instanceof ArrayBuffer ? value.byteLength : 0
  if (value instanceof ArrayBuffer) return value.byteLength
  if (value instanceof SharedArrayBuffer || depth === MAX_DEPTH) return 0
  if (Array.isArray(value)) return bytesOfAll(value, value.length, depth)
  if (value instanceof Map)
    return (
      bytesOfFirst(value.keys(), value.size, depth) +
      bytesOfFirst(value.values(), value.size, depth)
    )
  if (value instanceof Set) return bytesOfFirst(value.values(), value.size, depth)
  const keys = Object.keys(value)
  return bytesOfAll(keys, keys.length, depth) + bytesOfAll(Object.values(value), keys.length, depth)
}

const bytesOfFirst = (members: IteratorObject<unknown>, count: number, depth: number) =>
  bytesOfAll([...members.take(sampleAt(depth))], count, depth)

/** With an index: an iterator costs three times as much, and it is done for each message. */
function bytesOfAll(members: readonly unknown[], count: number, depth: number): number {
  const sample = Math.min(members.length, sampleAt(depth))
  let bytes = 0
  for (let index = 0; index < sample; index++) bytes += bytesOf(members[index], depth + 1)
  return sample === 0 ? 0 : Math.round((bytes * count) / sample)
}

const sampleAt = (depth: number) => Math.ceil(SAMPLE / SAMPLE_DIVISOR ** depth)
