import { detachedContext, type TaskContext } from '@offloop/workpool/task'

/** What a task is given that is cancelled when it looks for the `last` time; `looks` counts. */
export class CancelledContext {
  readonly reason = new Error('Cancelled')
  readonly context: TaskContext
  looks = 0

  constructor(last: number) {
    this.context = {
      ...detachedContext,
      throwIfCancelled: () => {
        if (++this.looks === last) throw this.reason
      },
    }
  }
}
