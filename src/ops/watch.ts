import { performance } from 'node:perf_hooks'
import { coreWait } from './core-wait.ts'
import { culpritOf } from './culprit.ts'
import { type Beats, lastBeat } from './heartbeat.ts'
import { type Culprit, type Incident, UNKNOWN } from './incident.ts'
import { look } from './look.ts'

const NS_PER_MS = 1_000_000
/** A look that is answered later than that had to wait for native code. */
const LATE_MS = 25
/** Looks rest after each one, for twice as long each time, until it was calm for a while. */
const MIN_REST_MS = 500
const MAX_REST_MS = 30_000

export interface WatchOptions {
  /** Where the event loop notes its beats, and how often. */
  beats: Beats
  periodMs: number
  /** An incident is what holds the loop longer; 0 for none ever. */
  thresholdMs: number
  /** The channel that `onLook` answers on. */
  lookName: string
  /** Whether incidents in a row are looked at one by one, without rest. */
  tireless: boolean
}

/** An incident that is not over. */
interface Holding {
  at: number
  culprit: Culprit | undefined
  looking: Promise<void> | undefined
}

/** What can be told while the event loop is held. */
export interface Held {
  /** Milliseconds for which it has been held by now; 0 while it turns. */
  heldMs: number
  culprit: Culprit | undefined
}

/**
 * The watchdog's eye, on a thread of its own: compares the last beat with the clock now and then, looks at what the event
 * loop's thread does once it is overdue, and tells of the incident when the loop turns again.
 */
export class Watch {
  readonly #options: WatchOptions
  readonly #onIncident: (incident: Incident) => void
  readonly #ending = new Set<Promise<void>>()
  #beat: bigint | undefined
  #polledAt = process.hrtime.bigint()
  /** How much of the time since the last beat does not count: this thread was stopped as well, so all of the process was. */
  #awayNs = 0n
  /** `coreWait()` when the beat was first overdue. */
  #waitBefore: bigint | undefined
  #holding: Holding | undefined
  #restMs = MIN_REST_MS
  #restUntil = Number.NEGATIVE_INFINITY

  constructor(options: WatchOptions, onIncident: (incident: Incident) => void) {
    this.#options = options
    this.#onIncident = onIncident
    setInterval(() => this.#poll(), options.periodMs)
  }

  /** For how long the event loop has been held, and by what as far as that is known by now. */
  get held(): Held {
    const heldMs = this.#heldMs(process.hrtime.bigint())
    if (heldMs < this.#options.periodMs) return { heldMs: 0, culprit: undefined }
    return { heldMs, culprit: this.#holding?.culprit }
  }

  /** Resolves when all incidents that are over by now have been told of. */
  async settle(): Promise<void> {
    this.#poll()
    await Promise.all(this.#ending)
  }

  #poll() {
    const now = process.hrtime.bigint()
    const sinceMs = Number(now - this.#polledAt) / NS_PER_MS
    const beat = lastBeat(this.#options.beats)
    const wasAway = sinceMs > this.#options.periodMs * 2
    if (wasAway) this.#awayNs += now - this.#polledAt
    if (beat !== this.#beat) this.#turned(beat)
    // A beat that is new may be from before: then the event loop was stopped after it, too.
    if (wasAway && beat !== undefined && this.#awayNs === 0n) this.#awayNs = now - beat
    this.#polledAt = now
    if (beat === undefined || this.#holding || this.#options.thresholdMs === 0) return
    const heldMs = this.#heldMs(now)
    if (heldMs > 0) this.#waitBefore ??= coreWait()
    if (heldMs >= this.#options.thresholdMs && heldMs - this.#waitedMs() >= this.#options.thresholdMs) this.#begin(heldMs)
  }

  /** From when the next beat was due until `now`. */
  #heldMs(now: bigint): number {
    const beat = lastBeat(this.#options.beats)
    if (beat === undefined) return 0
    const away = beat === this.#beat ? this.#awayNs : 0n
    return Math.max(0, Number(now - beat - away) / NS_PER_MS - this.#options.periodMs)
  }

  #waitedMs(): number {
    return this.#waitBefore === undefined ? 0 : Number(coreWait() - this.#waitBefore) / NS_PER_MS
  }

  #begin(heldMs: number) {
    const holding: Holding = { at: Date.now() - heldMs, culprit: undefined, looking: undefined }
    this.#holding = holding
    // Whoever cannot be looked at remains unknown.
    if (this.#mayLook()) holding.looking = this.#look(holding, this.#beat).catch(() => {})
  }

  async #look(holding: Holding, beat: bigint | undefined) {
    const askedAt = process.hrtime.bigint()
    const sight = await look(this.#options.lookName)
    if (!sight || sight.beat !== String(beat)) return
    const tookMs = Number(BigInt(sight.seenAt) - askedAt) / NS_PER_MS
    holding.culprit = culpritOf(sight, tookMs > LATE_MS)
  }

  #mayLook(): boolean {
    if (this.#options.tireless) return true
    const now = performance.now()
    if (now < this.#restUntil) return false
    this.#restMs = now > this.#restUntil + MAX_REST_MS ? MIN_REST_MS : Math.min(this.#restMs * 2, MAX_REST_MS)
    this.#restUntil = now + this.#restMs
    return true
  }

  /** The loop has come round: what held it is over. */
  #turned(beat: bigint | undefined) {
    if (this.#beat !== undefined && beat !== undefined) this.#conclude(this.#lengthMs(this.#beat, beat))
    this.#holding = undefined
    this.#beat = beat
    this.#awayNs = 0n
    this.#waitBefore = undefined
  }

  #conclude(heldMs: number) {
    const { thresholdMs } = this.#options
    if (thresholdMs === 0 || (!this.#holding && heldMs < thresholdMs)) return
    // It may have come and gone between two polls.
    const holding = this.#holding ?? { at: Date.now() - heldMs, culprit: undefined, looking: undefined }
    const ending = this.#end(holding, Math.max(thresholdMs, heldMs)).finally(() => this.#ending.delete(ending))
    this.#ending.add(ending)
  }

  #lengthMs(before: bigint, after: bigint): number {
    return Number(after - before - this.#awayNs) / NS_PER_MS - this.#options.periodMs - this.#waitedMs()
  }

  async #end(holding: Holding, heldMs: number) {
    await holding.looking
    this.#onIncident({ at: Math.round(holding.at), heldMs: Math.round(heldMs), ...(holding.culprit ?? UNKNOWN) })
  }
}
