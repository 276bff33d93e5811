import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import type { Valkey } from '../valkey.ts'

const TOPICS = 'topics'
const ANNOUNCE_EVERY_MS = 2_000
const KNOWN_MS = 5_000
/** A process with more announces `ANY`. */
const MAX_ANNOUNCED = 1_000
const MAX_KNOWN = 50_000
const ANY = '*'
/** After an outage each process reports a gap: all within this time count as one. */
const RESYNC_DELAY_MS = 1_000

export interface RelayedEvent {
  topic: string
  name: string
  payload: unknown
  latest: boolean
}

interface Receiver {
  receive(event: RelayedEvent): void
  /** Events of other processes may have been missed. */
  resync(): void
}

type Message = { from: string } & Omit<RelayedEvent, 'topic'>

/** `asks` others to announce theirs. */
type Announcement = { from: string; topics: string[]; asks: boolean }

/**
 * Carries events between processes, those of each in order. Each topic has a channel: a process
 * receives only what has subscribers in it.
 */
export class Relay implements Disposable {
  readonly #id = randomUUID()
  readonly #valkey: Valkey
  /** Topics with subscribers here, and what unsubscribes. */
  readonly #followed = new Map<string, () => void>()
  /** Until when topics count as subscribed to elsewhere. */
  readonly #known = new Map<string, number>()
  readonly #stops: (() => void)[] = []
  #receiver: Receiver | undefined
  #resyncing: NodeJS.Timeout | undefined

  constructor(valkey: Valkey) {
    this.#valkey = valkey
  }

  open(receiver: Receiver): void {
    this.#receiver = receiver
    const announcing = setInterval(() => this.#refresh(), ANNOUNCE_EVERY_MS).unref()
    this.#stops.push(
      () => clearInterval(announcing),
      () => clearTimeout(this.#resyncing),
      this.#valkey.subscribe(TOPICS, (message) => this.#learn(message as Announcement)),
      this.#valkey.onGap(() => this.#noteGap()),
    )
    void this.#valkey.subscribed().then(() => this.#announce([...this.#followed.keys()], true))
  }

  get isReady(): boolean {
    return this.#valkey.isReady
  }

  /** Whether another process has said that it has subscribers. */
  hasSubscribers(topic: string): boolean {
    const now = performance.now()
    return this.#isKnown(topic, now) || this.#isKnown(ANY, now)
  }

  publish({ topic, ...event }: RelayedEvent): void {
    this.#valkey.publish(toChannel(topic), { from: this.#id, ...event })
  }

  follow(topic: string, wanted: boolean): void {
    const stop = this.#followed.get(topic)
    if (wanted === (stop !== undefined)) return
    if (stop) {
      stop()
      this.#followed.delete(topic)
    } else {
      const receive = (message: unknown) => this.#receive(topic, message as Message)
      this.#followed.set(topic, this.#valkey.subscribe(toChannel(topic), receive))
      this.#announce([topic])
    }
  }

  /** Resolves once followed topics arrive, or Valkey fails. */
  following(): Promise<void> {
    return this.#valkey.subscribed()
  }

  [Symbol.dispose]() {
    for (const stop of [...this.#stops, ...this.#followed.values()]) stop()
  }

  #receive(topic: string, { from, ...event }: Message) {
    if (from !== this.#id) this.#receiver?.receive({ topic, ...event })
  }

  #isKnown(topic: string, now: number): boolean {
    return (this.#known.get(topic) ?? 0) > now
  }

  #refresh() {
    const now = performance.now()
    for (const topic of this.#known.keys())
      if (!this.#isKnown(topic, now)) this.#known.delete(topic)
    if (this.#followed.size > 0) this.#announce([...this.#followed.keys()])
  }

  #announce(topics: string[], asks = false) {
    if (!this.#valkey.isReady) return
    const bounded = topics.length > MAX_ANNOUNCED ? [ANY] : topics
    const announcement: Announcement = { from: this.#id, topics: bounded, asks }
    this.#valkey.publish(TOPICS, announcement)
  }

  #learn({ from, topics, asks }: Announcement) {
    if (from === this.#id) return
    const until = performance.now() + KNOWN_MS
    for (const topic of topics) this.#known.set(this.#known.size < MAX_KNOWN ? topic : ANY, until)
    if (asks && this.#followed.size > 0) this.#announce([...this.#followed.keys()])
  }

  #noteGap() {
    this.#resyncing ??= setTimeout(() => {
      this.#resyncing = undefined
      this.#announce([...this.#followed.keys()], true)
      this.#receiver?.resync()
    }, RESYNC_DELAY_MS).unref()
  }
}

const toChannel = (topic: string) => `events:${topic}`
