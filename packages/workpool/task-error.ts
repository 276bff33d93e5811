/**
 * A task failed where it ran: it threw, or it took its thread down. `cause` has the error and the
 * thread's stack.
 */
export class TaskError extends Error {
  override readonly name = 'TaskError'
  readonly task: string
  /** Which item of a `map` it was. */
  readonly item: number | undefined

  constructor(task: string, cause: unknown, item?: number) {
    const where = item === undefined ? '' : ` on item ${item}`
    super(
      `The task ${task} failed${where}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    )
    this.task = task
    this.item = item
  }
}
