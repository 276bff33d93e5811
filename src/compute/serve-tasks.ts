import { isMainThread, parentPort, workerData } from 'node:worker_threads'
import { implementationOf, type TaskContext } from './implement.ts'
import { lowerPriority } from './priority.ts'
import type { DoneMessage, RunMessage, ThreadData, ThreadMessage } from './protocol.ts'

/** Turns this worker thread into one that serves tasks: the last thing its entry file does, after loading them. */
export function serveTasks(): void {
  if (isMainThread || !parentPort) throw new Error('Tasks are served by worker threads only')
  const port = parentPort
  const { cancelled } = workerData as ThreadData
  lowerPriority()
  port.on('message', async (message: RunMessage) => {
    const done = await runTask(message, cancelled)
    try {
      port.postMessage(done)
    } catch (error) {
      // The output cannot be cloned: a function in it, say.
      port.postMessage({ id: message.id, ok: false, error, runMs: done.runMs } satisfies DoneMessage)
    }
  })
  port.postMessage('ready' satisfies ThreadMessage)
}

async function runTask({ id, task, input }: RunMessage, cancelled: Int32Array): Promise<DoneMessage> {
  const startedAt = performance.now()
  try {
    const output = await implementationOf(task)(input as never, contextOf(id, cancelled))
    return { id, ok: true, output, runMs: performance.now() - startedAt }
  } catch (error) {
    return { id, ok: false, error, runMs: performance.now() - startedAt }
  }
}

function contextOf(id: number, flag: Int32Array): TaskContext {
  const isCancelled = () => Atomics.load(flag, 0) === id
  return {
    get cancelled() {
      return isCancelled()
    },
    throwIfCancelled() {
      if (isCancelled()) throw new Error('The task was cancelled')
    },
  }
}
