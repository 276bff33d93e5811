import { Worker } from 'node:worker_threads'

type Answer = (doubled: number) => void

/** Threads and `postMessage`, no pool: what no pool can be faster than without sending fewer messages. */
export class BareThreads implements AsyncDisposable {
  readonly #workers: Worker[]
  readonly #answers: Answer[] = []

  constructor(threads: number) {
    this.#workers = Array.from({ length: threads }, (_, index) =>
      new Worker(new URL('./bare-worker.ts', import.meta.url)).on('message', (doubled) => this.#answers[index]?.(doubled)),
    )
  }

  /** By the first thread. One at a time. */
  double(n: number): Promise<number> {
    const { promise, resolve } = Promise.withResolvers<number>()
    this.#answers[0] = resolve
    this.#workers[0]?.postMessage(n)
    return promise
  }

  /** All are sent at once, to each thread in turn; a thread answers in the order in which it was asked. */
  doubleAll(numbers: number[]): Promise<number[]> {
    const { promise, resolve } = Promise.withResolvers<number[]>()
    const doubled = new Array<number>(numbers.length)
    const step = this.#workers.length
    let missing = numbers.length
    for (let first = 0; first < step; first++) {
      let index = first
      this.#answers[first] = (answer) => {
        doubled[index] = answer
        index += step
        if (--missing === 0) resolve(doubled)
      }
    }
    for (const [index, n] of numbers.entries()) this.#workers[index % step]?.postMessage(n)
    return promise
  }

  async [Symbol.asyncDispose]() {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}
