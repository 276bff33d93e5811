import { onThemeChange } from '../chart.js'
import { element } from '../element.js'
import { bytes, number, percent } from '../format.js'
import { KEPT_MS, onSamples, serviceNow } from '../samples.js'
import { LOOP, toBlockBar, toOpenBar } from './threads/bars.js'
import { Lanes } from './threads/lanes.js'
import { SpanStore } from './threads/spans.js'
import { kindsTable, latestTable } from './threads/tables.js'
import { control, Timeline, toolbar } from './threads/timeline.js'

/** @typedef {import('./threads/bars.js').Bar} Bar */
/** @typedef {import('../../src/ops/live-samples.ts').OpsSample} Sample */

/** A worker's occupancy is that of so many seconds. */
const OCCUPANCY_SAMPLES = 5

/**
 * A lane for the event loop and each worker thread, with blocks and tasks as bars in time.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'Threads', order: 20, access: 'operate', width: 'wide', mount }

/** For tests, `section.lanes` has what is shown. */
function mount(
  /** @type {HTMLElement & { lanes?: object }} */ section,
  /** @type {import('../live.js').PanelContext} */ context,
) {
  const store = new SpanStore()
  /** @type {Sample[]} */
  let samples = []
  const occupancy = new Occupancy()
  let isDirty = true

  const timeline = new Timeline(() => {
    isDirty = true
    showState()
  })
  const { bar, showState } = toolbar(timeline)
  const lanes = new Lanes(timeline, () => {
    isDirty = true
  })
  lanes.surface.setAttribute('aria-label', 'Timeline of the event loop and the worker threads')
  lanes.surface.setAttribute('aria-describedby', 'threads-keys')
  control(lanes.surface, timeline)
  const legend = new Legend()
  const kinds = kindsTable()
  const latest = latestTable(() => allBars(store, samples))
  section.append(
    element('div', { className: 'toolbar' }, section.firstElementChild ?? '', bar),
    element(
      'p',
      { className: 'hint', id: 'threads-keys' },
      'Each bar is a task on its thread. Drag or ← → to move, + − or the wheel to zoom, space to pause.',
    ),
    lanes.element,
    legend.element,
    kinds.element,
    latest.element,
  )
  section.lanes = {
    timeline,
    get spans() {
      return store.all
    },
    get running() {
      return store.running
    },
    get gaps() {
      return store.gaps
    },
    get blocks() {
      return toBlockBars(samples)
    },
  }

  function show() {
    lanes.show({ lanes: toLanes(store, samples, occupancy), samples, gaps: store.gaps })
    legend.show(store.leftOut)
    latest.show()
  }

  const { live, api } = context
  live.on('ops.spans', (/** @type {import('./threads/spans.js').SpanBatch} */ batch) => {
    store.add(batch)
    show()
  })
  live.onReconnect(async () => {
    store.expectPast()
    const past = await api('GET', '/v1/ops/spans', { background: true }).catch(() => undefined)
    store.load(past, serviceNow())
    show()
  })
  live.onState((state) => {
    if (state !== 'live') store.disconnect(serviceNow())
  })
  onSamples(context, (past) => {
    samples = past
    occupancy.add(samples.at(-1))
    store.keepSince(serviceNow() - KEPT_MS, occupancy.workers)
    kinds.show(samples.at(-1)?.compute.kinds ?? [])
    show()
  })
  onThemeChange(() => {
    isDirty = true
  })
  new ResizeObserver(() => {
    isDirty = true
  }).observe(lanes.surface)

  const isCalm = matchMedia('(prefers-reduced-motion: reduce)')
  let shownEnd = 0
  /** Draws whenever the lanes move by a pixel; with reduced motion, once a second. */
  function animate() {
    const movedBy = Math.abs(timeline.end - shownEnd)
    const pixelMs = timeline.widthMs / Math.max(1, lanes.surface.clientWidth)
    if (isDirty || movedBy >= (isCalm.matches ? 1_000 : pixelMs)) {
      isDirty = false
      shownEnd = timeline.end
      lanes.draw()
    }
    requestAnimationFrame(animate)
  }
  show()
  animate()
}

/** @param {Sample[]} samples */
const toBlockBars = (samples) =>
  samples
    .flatMap(({ blocks }) => blocks.map(toBlockBar))
    .sort((one, other) => one.startedAt - other.startedAt)

/** @param {SpanStore} store @param {Sample[]} samples @returns {Bar[]} */
const allBars = (store, samples) => [
  ...toBlockBars(samples),
  ...store.all,
  ...store.running.map(toOpenBar),
]

/** @param {SpanStore} store @param {Sample[]} samples @param {Occupancy} occupancy */
function toLanes(store, samples, occupancy) {
  const newest = samples.at(-1)
  const note = newest && `${percent(newest.loop.utilization)} · ${bytes(newest.memory.heapUsed)}`
  return [
    { name: LOOP, note: note ?? '', bars: toBlockBars(samples), open: undefined },
    ...[...store.lanes].map(([name, bars]) => {
      const running = store.running.find(({ thread }) => thread === name)
      return {
        name,
        note: occupancy.describe(name),
        bars,
        open: running && toOpenBar(running),
      }
    }),
  ]
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

/** What on the lanes is no single task. */
class Legend {
  #leftOut = element('li', { hidden: true })
  element = element(
    'ul',
    { className: 'legend' },
    ...[
      ['open', 'running'],
      ['merged', 'several short tasks, the paler the less busy'],
      ['unsuccessful', 'failed or cancelled'],
      ['block', 'event loop blocked'],
      ['gap', 'not connected, or not started'],
    ].map(([key, text]) => element('li', {}, element('i', { className: `key tall ${key}` }), text)),
    element('li', {}, 'beside each name: share of time in use · memory'),
    this.#leftOut,
  )

  /** @param {number} leftOut */
  show(leftOut) {
    this.#leftOut.hidden = leftOut === 0
    this.#leftOut.textContent = `${number(leftOut)} short tasks not shown`
  }
}
