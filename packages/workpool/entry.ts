import { performance } from 'node:perf_hooks'
import type { Limits } from './limits.ts'

export type Priority = 'interactive' | 'batch'

export interface EntryOptions extends Limits {
  /** Requests are `interactive`, jobs are `batch`: neither can starve the other. */
  priority?: Priority | undefined
  /**
   * Who calls, say a customer's id or a client's address: callers get equal shares of the threads,
   * however much one asks for.
   */
  key?: string | undefined
}

/** What waits in the queue: a call, or a whole map that has not begun. */
export abstract class Entry {
  readonly queuedAt = performance.timeOrigin + performance.now()
  /** Refused when it still waits then; on the clock of `queuedAt`. */
  dueAt = Number.POSITIVE_INFINITY
  /**
   * How long it will probably run; while an executor has it, undefined if its task never ran
   * before.
   */
  estimateMs: number | undefined = undefined
  /** Its place in the queue, while it waits. */
  list: object | undefined = undefined
  previous: Entry | undefined = undefined
  next: Entry | undefined = undefined
  abstract readonly task: string
  abstract readonly options: EntryOptions
  /** Ends it, since nothing of it will run. */
  abstract refuse(reason: unknown): void

  get priority(): Priority {
    return this.options.priority ?? 'interactive'
  }
}

/** A map, which waits for its turn as one, however many chunks it will have. */
export class MapEntry extends Entry {
  readonly task: string
  readonly options: EntryOptions
  /** It is its turn: adds the first chunks to the pool. */
  readonly begin: () => void
  readonly refuse: (reason: unknown) => void

  constructor(
    task: string,
    options: EntryOptions,
    begin: () => void,
    refuse: (reason: unknown) => void,
  ) {
    super()
    this.task = task
    this.options = options
    this.begin = begin
    this.refuse = refuse
  }
}
