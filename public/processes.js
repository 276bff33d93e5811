/** @typedef {import('../src/ops/live-samples.ts').OpsSample} Sample */
/** @typedef {import('../src/ops/processes.ts').ProcessList} ProcessList */
/** @typedef {ProcessList['processes'][0]} Row */
/** @typedef {{ node: string, v8: string, database: string }} Versions */

/**
 * @typedef {object} Process
 * @property {string} id
 * @property {Row | undefined} row as it was listed
 * @property {Versions | undefined} versions
 * @property {Sample[]} samples the last ten minutes, oldest first
 * @property {number} heardAt by the browser's clock
 * @property {string | undefined} replaces the id of the process before, whose samples it has taken
 */

export const KEPT_MS = 600_000
const MAX_PROCESSES = 64
/** A sample comes once a second, and later while the event loop is blocked. */
const HEARD_MS = 5_000
/** How long a dead process stays after it was last seen. */
const DEAD_MS = 120_000

/** Host and process id. @param {Process} process */
export const nameOf = ({ id }) => id.split(':').slice(0, 2).join(':')

/** The processes that the page knows, and what each has sent. */
export class Processes {
  /** @type {Map<string, Process>} */
  #all = new Map()
  /** Ids of processes whose successors go on with their samples. @type {Set<string>} */
  #replaced = new Set()
  /** Which answered the page last. @type {Process | undefined} */
  #answered
  /** @type {Process | undefined} */
  #own
  #chosenId = ''
  /** @type {ProcessList['totals'] | undefined} */
  totals
  leftOut = 0

  /** The one that serves the page; of several behind a proxy, the first that answered. */
  get own() {
    return this.#own
  }

  get chosen() {
    return this.#all.get(this.#chosenId) ?? this.#own
  }

  get ids() {
    return [...this.#all.keys()]
  }

  /** The page's own, then the others that are listed. */
  get shown() {
    const listed = [...this.#all.values()].filter(({ row }) => row).sort(inOrder)
    return [...new Set(this.#own ? [this.#own, ...listed] : listed)]
  }

  /** Whether the list may have changed. */
  get isOutdated() {
    return this.leftOut === 0 && [...this.#all.values()].some(({ row }) => !row)
  }

  /** @param {string} id */
  choose(id) {
    this.#chosenId = id
  }

  /** Until it is heard again, a process may be gone. */
  disconnect() {
    for (const process of this.#all.values()) process.heardAt = Number.NEGATIVE_INFINITY
  }

  /** @param {Process} process */
  isAlive({ row, heardAt }, now = Date.now()) {
    return now - heardAt < HEARD_MS || row?.isAlive !== false
  }

  /**
   * @param {string} id
   * @param {Sample} sample
   * @returns {Process | undefined} undefined if there are too many
   */
  hear(id, sample, now = Date.now()) {
    const process = this.#find(id)
    if (!process) return undefined
    this.#replaced.delete(id)
    process.heardAt = now
    process.samples = mergeSamples(process.samples, [sample])
    this.#own ??= process
    return process
  }

  /** @param {{ process: string, versions: Versions, samples: Sample[] }} past */
  load({ process: id, versions, samples }) {
    const process = this.#find(id)
    if (!process) return
    process.versions = versions
    process.samples = mergeSamples(process.samples, samples)
    if (!this.#answered) this.#own = process
    this.#answered = process
    this.#settle()
  }

  /** @param {ProcessList} listed */
  list({ processes, totals, leftOut }, now = Date.now()) {
    this.totals = totals
    this.leftOut = leftOut
    const rows = new Map(processes.map((row) => [row.id, row]))
    // By the database's clock, as all of these times.
    const newest = Math.max(...processes.map(({ seenAt }) => Date.parse(seenAt)))
    for (const { id, isAlive, seenAt } of processes)
      if (!isAlive && newest - Date.parse(seenAt) > DEAD_MS) rows.delete(id)
    for (const id of rows.keys()) if (!this.#replaced.has(id)) this.#find(id)
    for (const process of this.#all.values()) process.row = rows.get(process.id)
    this.#replaced = this.#replaced.intersection(rows)
    this.#settle()
    for (const { id, row, heardAt } of this.#all.values())
      if (!row && now - heardAt >= HEARD_MS && leftOut === 0) this.#all.delete(id)
    if (this.#own && !this.#all.has(this.#own.id)) this.#own = this.shown.find(({ row }) => row)
  }

  /** @param {string} id @returns {Process | undefined} */
  #find(id) {
    const known = this.#all.get(id)
    if (known || this.#all.size >= MAX_PROCESSES) return known
    const process = {
      id,
      row: undefined,
      versions: undefined,
      samples: [],
      heardAt: Number.NEGATIVE_INFINITY,
      replaces: undefined,
    }
    this.#all.set(id, process)
    return process
  }

  /**
   * Lets the process that answered follow the page's own when that is gone. One that started after
   * its end, such as by a restart, goes on with its samples.
   */
  #settle() {
    const [before, next] = [this.#own, this.#answered]
    if (!before || !next?.row || before === next || before.heardAt > 0) return
    const isSuccessor = lastSeen(before) < next.row.startedAt
    if (before.row?.isAlive && !isSuccessor) return
    this.#own = next
    if (!isSuccessor) return
    next.samples = mergeSamples(before.samples, next.samples)
    next.replaces = before.id
    this.#replaced.add(before.id)
    this.#all.delete(before.id)
  }
}

/** @param {Process} process */
const lastSeen = ({ row, samples }) =>
  row?.seenAt ?? new Date(samples.at(-1)?.at ?? 0).toISOString()

/** @param {Process} one @param {Process} other */
const inOrder = (one, other) => toKey(one).localeCompare(toKey(other), 'en', { numeric: true })

/** @param {Process} process */
const toKey = ({ id, row }) => `${row?.role} ${id}`

/**
 * Ten minutes of both, each sample once. What the service reads out later replaces what it sent.
 *
 * @param {Sample[]} known
 * @param {Sample[]} read in a row, without a gap
 */
export function mergeSamples(known, read) {
  if (read.length === 0) return known
  const [first, last] = [read[0].at, read[read.length - 1].at]
  const merged = [
    ...known.filter(({ at }) => at < first).map(withoutDetails),
    ...read,
    ...known.filter(({ at }) => at > last),
  ]
  const from = (merged.at(-1)?.at ?? 0) - KEPT_MS
  return merged.filter(({ at }) => at > from)
}

/** @param {Sample} sample @returns {Sample} */
function withoutDetails(sample) {
  if (sample.compute.threads.length === 0) return sample
  const compute = { ...sample.compute, threads: [], processes: [], kinds: [] }
  return { ...sample, compute }
}
