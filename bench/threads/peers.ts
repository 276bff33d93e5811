import { Worker } from 'node:worker_threads'
import { Piscina } from 'piscina'
import { FixedThreadPool } from 'poolifier'
import { machine } from '../support/machine.ts'

/**
 * Other pools, with as many threads as cores and otherwise their defaults. They end with the
 * process: poolifier's `destroy()` sometimes never resolves.
 */
const threads = machine.cores

export function openPiscina(concurrentTasksPerWorker = 1): Piscina<number, number> {
  const filename = new URL('./piscina-worker.ts', import.meta.url).href
  return new Piscina({
    filename,
    minThreads: threads,
    maxThreads: threads,
    concurrentTasksPerWorker,
  })
}

export function openPoolifier(): FixedThreadPool<number, number> {
  return new FixedThreadPool(threads, new URL('./poolifier-worker.ts', import.meta.url).pathname)
}

/** Threads and `postMessage` alone: no pool can be faster without sending fewer messages. */
export class BareThreads<Input, Output> implements AsyncDisposable {
  readonly #workers: Worker[]
  readonly #answers: ((output: Output) => void)[] = []

  constructor(count: number) {
    const entry = new URL('./bare-worker.ts', import.meta.url)
    this.#workers = Array.from({ length: count }, (_, index) =>
      new Worker(entry).on('message', (output) => this.#answers[index]?.(output)),
    )
  }

  /** By the first thread. One at a time. */
  run(input: Input): Promise<Output> {
    const { promise, resolve } = Promise.withResolvers<Output>()
    this.#answers[0] = resolve
    this.#workers[0]?.postMessage(input)
    return promise
  }

  /** Sends all at once, to each thread in turn; a thread answers in the order of its inputs. */
  runAll(inputs: Input[]): Promise<Output[]> {
    const { promise, resolve } = Promise.withResolvers<Output[]>()
    const outputs = new Array<Output>(inputs.length)
    const step = this.#workers.length
    let missing = inputs.length
    for (let first = 0; first < step; first++) {
      let index = first
      this.#answers[first] = (output) => {
        outputs[index] = output
        index += step
        if (--missing === 0) resolve(outputs)
      }
    }
    for (const [index, input] of inputs.entries()) this.#workers[index % step]?.postMessage(input)
    return promise
  }

  async [Symbol.asyncDispose]() {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}
