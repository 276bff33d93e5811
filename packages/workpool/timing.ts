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
  /** As the caller gave it. */
  requestId: string | undefined
}

/** What is known of a run that has ended, in whatever way. */
export type Ended = Pick<DoneMessage, 'startedAt' | 'runMs'> & { items?: number }

export function timingOf(
  call: Call,
  thread: string,
  { startedAt, runMs, items = call.items }: Ended,
): Timing {
  const { task, outcome = 'crashed', queuedAt } = call
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
    requestId: call.options.requestId,
  }
}
