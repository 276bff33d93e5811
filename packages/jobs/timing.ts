/** How long things take, in milliseconds. Only tests have others than these. */
export interface Timing {
  /** For how long a claim holds without a word from its worker. */
  leaseMs: number
  /** How often a worker renews the leases of what it runs. */
  heartbeatMs: number
  /**
   * How often each process looks for jobs that others queued, that are due, or that lost their
   * worker.
   */
  pollMs: number
  /** How often a worker looks whether it still holds what it runs, and writes its progress. */
  watchMs: number
  /** The longest pause before what failed is tried again, as when the database is away. */
  maxBackoffMs: number
  /**
   * At a stop: how long jobs may go on, and then how long they have to end once they were told to.
   */
  graceMs: number
}

export const TIMING: Timing = {
  leaseMs: 30_000,
  heartbeatMs: 10_000,
  pollMs: 500,
  watchMs: 250,
  maxBackoffMs: 5_000,
  graceMs: 1_000,
}
