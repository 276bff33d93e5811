/** Who runs jobs: an engine's only customer. */
export interface Consumer {
  /** How many more jobs it can take now. */
  readonly room: number
  /**
   * Claims jobs from the store and begins them: the first of the queue or, given ids, those of them
   * that are still queued. Resolves with whether there may be more in the queue.
   */
  claim(ids?: readonly string[]): Promise<boolean>
}

/**
 * What brings queued jobs to workers. The store is the truth: an engine may deliver late, twice, or
 * ids that were cancelled long ago, and `claim` sorts that out; it must not forget any for good.
 * test/jobs/engine-contract.ts says what each engine must do.
 */
export interface Engine {
  /** From now on it calls `claim` when there is something to claim and room for it. */
  start(consumer: Consumer): void
  /** Told of jobs that were queued, by a commit of this process. */
  queued(ids: readonly string[]): void
  /** The consumer has room again. */
  room(): void
  /** Resolves when nothing is being claimed any more, nor will be. */
  stop(): Promise<void>
}
