import { performance } from 'node:perf_hooks'
import { type CoreTime, mainCoreTime, ownCoreTime } from './core-time.ts'
import { culpritOf } from './culprit.ts'
import { type Beats, lastBeat, waitAtLastBeat } from './heartbeat.ts'
import { type Culprit, type Incident, UNKNOWN } from './incident.ts'
import { look } from './look.ts'

const NS_PER_MS = 1_000_000
/** A look that is answered later than that had to wait for native code. */
const LATE_MS = 25
/**
 * How many incidents in a row are looked at, and after how long one more is: a loop that is blocked
 * for good stays cheap.
 */
const MAX_LOOKS = 10
const MS_PER_LOOK = 5_000

export interface WatchOptions {
  /** Where the event loop notes its beats, and how often. */
  beats: Beats
  periodMs: number
  /** An incident is what holds the loop longer; 0 for none ever. */
  thresholdMs: number
  /** The channel that `onLook` answers on. */
  lookName: string
  /** Whether all incidents are looked at, however many there are in a row. */
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
 * The watchdog's eye, on a thread of its own: compares the last beat with the clock now and then,
 * looks at what the event loop's thread does once it is overdue, and tells of the incident when the
 * loop turns again.
 */
export class Watch {
  readonly #options: WatchOptions
  readonly #onIncident: (incident: Incident) => void
  readonly #ending = new Set<Promise<void>>()
  #beat: bigint | undefined
  #polledAt = process.hrtime.bigint()
  #ownTimeAtPoll = ownCoreTime()
  #mainTimeAtPoll = mainCoreTime()
  /**
   * How much of the time since the last beat does not count, because all of the process was
   * stopped.
   */
  #awayNs = 0n
  /** How long the event loop's thread had waited for a core until the last beat. */
  #waitAtBeat = 0n
  #holding: Holding | undefined
  #looksLeft = MAX_LOOKS
  #looksCountedAt = performance.now()

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
    const mainTime = mainCoreTime()
    const awayNs = this.#awaySincePoll(now, mainTime)
    const beat = lastBeat(this.#options.beats)
    const wasAway = Number(awayNs) / NS_PER_MS > this.#options.periodMs * 2
    if (wasAway) this.#awayNs += awayNs
    if (beat !== this.#beat) this.#turned(beat)
    // A beat that is new may be from before: then the event loop was stopped after it, too.
    if (wasAway && beat !== undefined && this.#awayNs === 0n) this.#awayNs = now - beat
    if (beat === undefined || this.#holding || this.#options.thresholdMs === 0) return
    const heldMs = this.#heldMs(now)
    if (
      heldMs >= this.#options.thresholdMs &&
      heldMs - this.#waitedMs(mainTime.waited) >= this.#options.thresholdMs
    )
      this.#begin(heldMs)
  }

  /**
   * Time since the last poll in which neither this thread nor the event loop's ran or waited for a
   * core.
   */
  #awaySincePoll(now: bigint, mainTime: CoreTime): bigint {
    const ownTime = ownCoreTime()
    const ownNs = elapsed(this.#ownTimeAtPoll, ownTime)
    const mainNs = elapsed(this.#mainTimeAtPoll, mainTime)
    const awayNs = now - this.#polledAt - (ownNs > mainNs ? ownNs : mainNs)
    this.#polledAt = now
    this.#ownTimeAtPoll = ownTime
    this.#mainTimeAtPoll = mainTime
    return awayNs
  }

  /** From when the next beat was due until `now`. */
  #heldMs(now: bigint): number {
    const beat = lastBeat(this.#options.beats)
    if (beat === undefined) return 0
    const away = beat === this.#beat ? this.#awayNs : 0n
    return Math.max(0, Number(now - beat - away) / NS_PER_MS - this.#options.periodMs)
  }

  /**
   * How long the event loop had no core between its last beat and when it had waited for `wait` in
   * all.
   */
  #waitedMs(wait: bigint): number {
    return Number(wait - this.#waitAtBeat) / NS_PER_MS
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
    this.#looksLeft = Math.min(
      MAX_LOOKS,
      this.#looksLeft + (now - this.#looksCountedAt) / MS_PER_LOOK,
    )
    this.#looksCountedAt = now
    if (this.#looksLeft < 1) return false
    this.#looksLeft--
    return true
  }

  /** The loop has come round: what held it is over. */
  #turned(beat: bigint | undefined) {
    // Its own, because the event loop may have waited for a core since.
    const wait = waitAtLastBeat(this.#options.beats)
    if (this.#beat !== undefined && beat !== undefined)
      this.#conclude(this.#lengthMs(this.#beat, beat, wait))
    this.#holding = undefined
    this.#beat = beat
    this.#awayNs = 0n
    this.#waitAtBeat = wait
  }

  #conclude(heldMs: number) {
    const { thresholdMs } = this.#options
    // Shorter than it looked: Linux counts a wait for a core when that is over.
    if (thresholdMs === 0 || heldMs < thresholdMs) return
    // It may have come and gone between two polls.
    const holding = this.#holding ?? {
      at: Date.now() - heldMs,
      culprit: undefined,
      looking: undefined,
    }
    const ending = this.#end(holding, heldMs).finally(() => this.#ending.delete(ending))
    this.#ending.add(ending)
  }

  #lengthMs(before: bigint, after: bigint, wait: bigint): number {
    return (
      Number(after - before - this.#awayNs) / NS_PER_MS -
      this.#options.periodMs -
      this.#waitedMs(wait)
    )
  }

  async #end(holding: Holding, heldMs: number) {
    await holding.looking
    this.#onIncident({
      at: Math.round(holding.at),
      heldMs: Math.round(heldMs),
      ...(holding.culprit ?? UNKNOWN),
    })
  }
}

const elapsed = (before: CoreTime, after: CoreTime): bigint =>
  after.ran + after.waited - before.ran - before.waited
