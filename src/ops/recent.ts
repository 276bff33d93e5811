/** From 1 µs to 18 minutes. */
const BUCKETS_PER_OCTAVE = 8
const BUCKETS = 30 * BUCKETS_PER_OCTAVE
const MIN_MS = 0.001

const OTHERS = 'other'
const SWEEP_EVERY_MS = 10_000

/** A sliding window, slice by slice; the first and last are incomplete. */
export class Recent<Slice> {
  readonly #sliceMs: number
  readonly #ring: ({ number: number; slice: Slice } | undefined)[]
  readonly #create: () => Slice

  constructor(sliceMs: number, slices: number, create: () => Slice) {
    this.#sliceMs = sliceMs
    this.#ring = new Array(slices + 1).fill(undefined)
    this.#create = create
  }

  current(now: number): Slice {
    const number = Math.floor(now / this.#sliceMs)
    const place = number % this.#ring.length
    const known = this.#ring[place]
    if (known?.number === number) return known.slice
    const slice = this.#create()
    this.#ring[place] = { number, slice }
    return slice
  }

  read(now: number): Slice[] {
    const oldest = Math.floor(now / this.#sliceMs) - this.#ring.length + 1
    return this.#ring.flatMap((entry) => (entry && entry.number >= oldest ? [entry.slice] : []))
  }

  isEmpty(now: number): boolean {
    return this.read(now).length === 0
  }
}

/** At most `max` names; further ones share a value until one of these is empty. */
export class ByName<Value extends { isEmpty(now: number): boolean }> {
  readonly #max: number
  readonly #create: () => Value
  readonly #values = new Map<string, Value>()
  #sweptAt = 0

  constructor(max: number, create: () => Value) {
    this.#max = max
    this.#create = create
  }

  find(name: string, now: number): Value {
    return this.#values.get(name) ?? this.#open(name, now)
  }

  [Symbol.iterator]() {
    return this.#values.entries()
  }

  #open(name: string, now: number): Value {
    if (this.#values.size >= this.#max && now - this.#sweptAt >= SWEEP_EVERY_MS) this.#sweep(now)
    const kept = this.#values.size < this.#max ? name : OTHERS
    const value = this.#values.get(kept) ?? this.#create()
    this.#values.set(kept, value)
    return value
  }

  #sweep(now: number) {
    this.#sweptAt = now
    for (const [name, value] of this.#values) if (value.isEmpty(now)) this.#values.delete(name)
  }
}

/** Counts durations in buckets that are 9 % wide. */
export class Durations {
  readonly #buckets = new Uint32Array(BUCKETS)
  count = 0
  totalMs = 0
  maxMs = 0

  static sum(all: readonly Durations[]): Durations {
    const sum = new Durations()
    for (const durations of all) sum.#merge(durations)
    return sum
  }

  add(ms: number, count = 1): void {
    const exact = Math.ceil(Math.log2(Math.max(ms, MIN_MS) / MIN_MS) * BUCKETS_PER_OCTAVE)
    const bucket = Math.min(exact, BUCKETS - 1)
    this.#buckets[bucket] = this.#at(bucket) + count
    this.count += count
    this.totalMs += ms * count
    if (ms > this.maxMs) this.maxMs = ms
  }

  /** At most 9 % too high. */
  percentile(share: number): number {
    const rank = this.count * share
    let bucket = 0
    for (let sum = this.#at(0); sum < rank; sum += this.#at(bucket)) bucket++
    return Math.min(this.maxMs, MIN_MS * 2 ** (bucket / BUCKETS_PER_OCTAVE))
  }

  #merge(other: Durations) {
    for (let bucket = 0; bucket < BUCKETS; bucket++)
      this.#buckets[bucket] = this.#at(bucket) + other.#at(bucket)
    this.count += other.count
    this.totalMs += other.totalMs
    this.maxMs = Math.max(this.maxMs, other.maxMs)
  }

  #at(bucket: number): number {
    return this.#buckets[bucket] as number
  }
}
