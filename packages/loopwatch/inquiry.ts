import { performance } from 'node:perf_hooks'
import type { MessagePort } from 'node:worker_threads'
import type { AnswerMessage, Answers, Subject, ThreadMessage } from './protocol.ts'

const POLL_MS = 5
/** However well the event loop turns: a database that hangs, say. */
const MAX_WAIT_MS = 2_000

/** The last that the event loop's thread told of a subject. */
export interface Known<Answer> {
  answer: Answer
  /** By `performance.now()`. */
  at: number
}

/** Asks the event loop's thread, and makes do with what it told last where that cannot answer. */
export class Inquiry {
  readonly #port: MessagePort
  readonly #heldMs: () => number
  readonly #known: { [Key in Subject]?: Known<Answers[Key]> } = {}
  readonly #answered = new Map<number, () => void>()
  #lastId = 0

  constructor(port: MessagePort, heldMs: () => number) {
    this.#port = port
    this.#heldMs = heldMs
  }

  /** The event loop's thread answers. */
  receive({ id, subject, answer }: AnswerMessage): void {
    Object.assign(this.#known, { [subject]: { answer, at: performance.now() } })
    this.#answered.get(id)?.()
  }

  /**
   * What is known now: from this moment if the event loop turns, otherwise from before.
   *
   * @param patienceMs an event loop that is held for longer than that is not waited for. It is
   * waited for, 2 s at most, where nothing is known, or what is known is older than `maxAgeMs`.
   */
  async ask<Key extends Subject>(
    subject: Key,
    { patienceMs, maxAgeMs }: { patienceMs: number; maxAgeMs: number },
  ): Promise<Known<Answers[Key]> | undefined> {
    const before = this.#known[subject]
    const mustWait = !before || performance.now() - before.at > maxAgeMs
    const isImpatient = () => !mustWait && this.#heldMs() > patienceMs
    // Whoever comes while it is held need not find that out again.
    if (isImpatient()) return before
    const id = ++this.#lastId
    const { promise: answered, resolve } = Promise.withResolvers<void>()
    this.#answered.set(id, resolve)
    this.#port.postMessage({ kind: 'ask', id, subject } satisfies ThreadMessage)
    const since = performance.now()
    const timer = setInterval(() => {
      if (isImpatient() || performance.now() - since > MAX_WAIT_MS) resolve()
    }, POLL_MS)
    await answered
    clearInterval(timer)
    this.#answered.delete(id)
    return this.#known[subject]
  }
}
