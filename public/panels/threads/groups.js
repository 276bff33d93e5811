import { element } from '../../element.js'
import { bytes, number, percent, timeOfDay } from '../../format.js'
import { KEPT_MS, nameOf } from '../../processes.js'
import { serviceNow } from '../../samples.js'
import { LOOP, toBlockBar, toOpenBar } from './bars.js'
import { MAX_SPANS, SpanStore } from './spans.js'

/** @typedef {import('./bars.js').Bar} Bar */
/** @typedef {import('../../processes.js').Process} Process */
/** @typedef {import('../../processes.js').Processes} Processes */
/** @typedef {import('../../samples.js').Sample} Sample */

/** A worker's occupancy is that of so many seconds. */
const OCCUPANCY_SAMPLES = 5

/** What each process has run: the lanes of one are a group. */
export class Groups {
  /** @type {Map<string, { store: SpanStore, occupancy: Occupancy, heardAt: number }>} */
  #all = new Map()
  /** @type {Processes | undefined} */
  #processes
  #isLive = false
  #isReading = false

  get stores() {
    return [...this.#all.values()].map(({ store }) => store)
  }

  get leftOut() {
    return this.stores.reduce((sum, { leftOut }) => sum + leftOut, 0)
  }

  /** @param {boolean} isLive whether the page hears of all that happens */
  setLive(isLive) {
    this.#isLive = isLive
    if (!isLive) for (const store of this.stores) store.disconnect(serviceNow())
  }

  expectPast() {
    this.#isReading = true
    for (const store of this.stores) store.expectPast()
  }

  /** @param {import('./spans.js').PastSpans & { process: string } | undefined} past */
  load(past) {
    if (past) this.#find(past.process)
    for (const [id, { store, heardAt }] of this.#all) {
      const isAnswer = id === past?.process
      store.load(isAnswer ? past : undefined, serviceNow())
      // What others have sent meanwhile is lost, up to what is heard next.
      if (!isAnswer) store.disconnect(heardAt)
    }
    this.#isReading = false
  }

  /** @param {string} id @param {import('./spans.js').SpanBatch} batch */
  add(id, batch) {
    if (this.#isReading || this.#processes?.ids.includes(id)) this.#find(id).store.add(batch)
  }

  /** @param {Processes} processes @param {Process | undefined} heard */
  update(processes, heard) {
    this.#processes = processes
    if (heard) {
      const group = this.#find(heard.id)
      const { store, occupancy } = group
      const sample = heard.samples.at(-1)
      occupancy.add(sample)
      group.heardAt = sample?.at ?? 0
      store.keepSince(serviceNow() - KEPT_MS, occupancy.workers)
      return
    }
    const ids = new Set(processes.ids)
    for (const process of processes.shown) {
      const { id, replaces } = process
      const group = this.#all.get(id)
      if (!processes.isAlive(process)) group?.store.disconnect(group.heardAt)
      const before = replaces !== undefined && !ids.has(replaces) && this.#all.get(replaces)
      if (!before) continue
      this.#find(id).store.adopt(before.store)
      this.#all.delete(replaces)
    }
    if (this.#isReading) return
    for (const id of this.#all.keys()) if (!ids.has(id)) this.#all.delete(id)
  }

  /** @returns {import('./lanes.js').Group[]} */
  toLanes() {
    const { own, shown = [] } = this.#processes ?? {}
    if (!own) return [toGroup('', NOTHING, [])]
    return shown.map((process) => {
      const { id, samples } = process
      const group = this.#all.get(id) ?? NOTHING
      const known = toGroup(id, group, samples)
      if (shown.length === 1) return known
      const isAlive = this.#processes?.isAlive(process)
      const lanes = isAlive ? known.lanes : known.lanes.map((lane) => ({ ...lane, note: '' }))
      return { ...known, lanes, title: toTitle(process, isAlive), name: nameOf(process) }
    })
  }

  /** The latest bars, of each lane at least `count`. @param {number} count @returns {Bar[]} */
  latest(count) {
    return this.toLanes().flatMap(({ name, lanes }) =>
      lanes
        .flatMap(({ bars, open }) => [...bars.slice(-count), ...(open ? [open] : [])])
        .map((bar) => (name ? { ...bar, thread: `${name} ${bar.thread}` } : bar)),
    )
  }

  /** @param {string} id */
  #find(id) {
    const known = this.#all.get(id)
    const group = known ?? { store: new SpanStore(), occupancy: new Occupancy(), heardAt: 0 }
    const { store } = group
    if (!known) {
      this.#all.set(id, group)
      for (const store of this.stores) store.max = Math.floor(MAX_SPANS / this.#all.size)
      if (this.#isReading) store.expectPast()
    }
    // Of a process that is heard for the first time, or again.
    if (store.isLost && this.#isLive && !this.#isReading) store.load(undefined, serviceNow())
    return group
  }
}

/** How busy each worker was in the last seconds, and its memory. */
class Occupancy {
  /** @type {Map<string, { shares: number[], memoryBytes: number | null }>} */
  #workers = new Map()

  get workers() {
    return [...this.#workers.keys()]
  }

  /** @param {Sample | undefined} sample */
  add(sample) {
    if (!sample) return
    const { threads, processes } = sample.compute
    this.#workers = new Map(
      [...threads, ...processes].map(({ name, busy, memoryBytes }) => {
        const before = this.#workers.get(name)?.shares ?? []
        return [name, { shares: [...before, busy].slice(-OCCUPANCY_SAMPLES), memoryBytes }]
      }),
    )
  }

  /** @param {string} name */
  describe(name) {
    const worker = this.#workers.get(name)
    if (!worker) return 'ended'
    const { shares, memoryBytes } = worker
    const busy = shares.reduce((sum, share) => sum + share, 0) / shares.length
    return `${percent(Math.round(busy * 100) / 100)} · ${bytes(memoryBytes)}`
  }
}

/** @param {Process} process @param {boolean} [isAlive] */
function toTitle(process, isAlive) {
  const { role = '', load, seenAt = 0 } = process.row ?? {}
  const figures = `${number(load?.cpu)} cores · ${bytes(load?.rss)} · ${number(load?.jobs)} jobs`
  return [
    element('b', {}, nameOf(process)),
    ` ${role} `,
    isAlive
      ? element('small', {}, load ? figures : 'starting')
      : element('small', { className: 'bad' }, `dead since ${timeOfDay(seenAt)}`),
  ]
}

const NOTHING = { store: new SpanStore(), occupancy: new Occupancy(), heardAt: 0 }

/**
 * @param {string} id
 * @param {{ store: SpanStore, occupancy: Occupancy }} group
 * @param {Sample[]} samples
 * @returns {import('./lanes.js').Group}
 */
const toGroup = (id, { store, occupancy }, samples) => ({
  id,
  title: undefined,
  name: '',
  lanes: toLanes(store, samples, occupancy),
  samples,
  gaps: store.gaps,
})

/** @param {SpanStore} store @param {Sample[]} samples @param {Occupancy} occupancy */
function toLanes(store, samples, occupancy) {
  const newest = samples.at(-1)
  const note = newest && `${percent(newest.loop.utilization)} · ${bytes(newest.memory.heapUsed)}`
  return [
    { name: LOOP, note: note ?? '', bars: toBlockBars(samples), open: undefined },
    ...[...store.lanes].map(([name, bars]) => {
      const running = store.running.find(({ thread }) => thread === name)
      return { name, note: occupancy.describe(name), bars, open: running && toOpenBar(running) }
    }),
  ]
}

/** @param {Sample[]} samples */
export const toBlockBars = (samples) =>
  samples
    .flatMap(({ blocks }) => blocks.map(toBlockBar))
    .sort((one, other) => one.startedAt - other.startedAt)
