import { Worker } from 'node:worker_threads'

/**
 * Threads and `postMessage`, no pool: what no pool can be faster than without sending fewer
 * messages.
 */
export class BareThreads<Input, Output> implements AsyncDisposable {
  readonly #workers: Worker[]
  readonly #answers: ((output: Output) => void)[] = []

  /** @param entry a file that answers each message with another. */
  constructor(entry: URL, threads: number) {
    this.#workers = Array.from({ length: threads }, (_, index) =>
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

  /**
   * All are sent at once, to each thread in turn; a thread answers in the order in which it was
   * asked.
   */
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
