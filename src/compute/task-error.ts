/** A task failed on its thread: it threw, or it took the thread down. `cause` has the error and the thread's stack. */
export class TaskError extends Error {
  override readonly name = 'TaskError'

  constructor(task: string, cause: unknown) {
    super(`The task ${task} failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}
