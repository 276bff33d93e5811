import { onThemeChange } from '../chart.js'
import { element } from '../element.js'
import { bytes, number } from '../format.js'
import { nameOf } from '../processes.js'
import { chooseProcess, onChosenSamples, onProcesses } from '../samples.js'
import { Groups, toBlockBars } from './threads/groups.js'
import { Lanes } from './threads/lanes.js'
import { kindsTable, latestTable } from './threads/tables.js'
import { control, Timeline, toolbar } from './threads/timeline.js'

/** Names and figures beside the lanes are shown so often, however many processes are heard. */
const SHOW_EVERY_MS = 200

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
  const groups = new Groups()
  let isOutdated = true
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
  const latest = latestTable((count) => groups.latest(count))
  const totals = new Totals()
  section.append(
    element('div', { className: 'toolbar' }, section.firstElementChild ?? '', bar),
    element(
      'p',
      { className: 'hint', id: 'threads-keys' },
      'Each bar is a task on its thread. Drag or ← → to move, + − or the wheel to zoom, ' +
        'space to pause.',
    ),
    totals.element,
    lanes.element,
    legend.element,
    kinds.element,
    latest.element,
  )
  section.lanes = {
    timeline,
    get spans() {
      return groups.stores.flatMap(({ all }) => all)
    },
    get running() {
      return groups.stores.flatMap(({ running }) => running)
    },
    get gaps() {
      return groups.toLanes()[0].gaps
    },
    get blocks() {
      return groups.toLanes().flatMap(({ samples }) => toBlockBars(samples))
    },
  }

  function show() {
    lanes.show(groups.toLanes())
    legend.show(groups.leftOut)
    latest.show()
  }

  const { live, api } = context
  live.on('ops.spans', ({ process, ...batch }) => {
    groups.add(process, batch)
    isOutdated = true
  })
  live.onReconnect(async () => {
    groups.expectPast()
    groups.load(await api('GET', '/v1/ops/spans', { background: true }).catch(() => undefined))
    isOutdated = true
  })
  live.onState((state) => groups.setLive(state === 'live'))
  onProcesses(context, (processes, heard) => {
    groups.update(processes, heard)
    totals.show(processes)
    isOutdated = true
  })
  onChosenSamples(context, (samples) => kinds.show(samples.at(-1)?.compute.kinds ?? []))
  onThemeChange(() => {
    isDirty = true
  })
  new ResizeObserver(() => {
    isDirty = true
  }).observe(lanes.surface)

  const isCalm = matchMedia('(prefers-reduced-motion: reduce)')
  let shownAt = 0
  let shownEnd = 0
  /** Draws whenever the lanes move by a pixel; with reduced motion, once a second. */
  function animate() {
    const now = performance.now()
    if (isOutdated && now - shownAt >= SHOW_EVERY_MS) {
      isOutdated = false
      shownAt = now
      show()
    }
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

/** What all processes do, and whose charts are shown; nothing where there is one process alone. */
class Totals {
  #figures = element('p')
  #select = element('select', { onchange: () => chooseProcess(this.#select.value) })
  element = element(
    'div',
    { className: 'row totals', hidden: true },
    this.#figures,
    element('label', {}, 'Charts and figures of ', this.#select),
  )

  /** @param {import('../processes.js').Processes} processes */
  show(processes) {
    const { shown, totals, leftOut } = processes
    this.element.hidden = shown.length < 2
    if (!totals || this.element.hidden) return
    const dead = shown.filter((process) => !processes.isAlive(process)).length
    this.#figures.replaceChildren(
      element('b', {}, totals.alive === 1 ? '1 process' : `${number(totals.alive)} processes`),
      [
        '',
        `${number(totals.busyThreads)} of ${number(totals.threads)} threads busy`,
        `${number(totals.queued)} tasks queued`,
        `${number(totals.jobs)} jobs`,
        `${number(totals.requestsPerSecond)} requests/s`,
        `${number(totals.cpu)} cores`,
        bytes(totals.rss),
        ...(leftOut > 0 ? [`${number(leftOut)} not shown`] : []),
      ].join(' · '),
      ...(dead > 0 ? [' · ', element('b', { className: 'bad' }, `${number(dead)} dead`)] : []),
    )
    this.#list(processes)
  }

  /**
   * An open list stays as it is while the processes do.
   *
   * @param {import('../processes.js').Processes} processes
   */
  #list({ shown, chosen }) {
    const texts = shown.map((process) => `${nameOf(process)} ${process.row?.role ?? ''}`)
    const known = [...this.#select.options].map(({ text }) => text)
    if (texts.join() !== known.join())
      this.#select.replaceChildren(
        ...shown.map(({ id }, place) => element('option', { value: id }, texts[place])),
      )
    this.#select.value = chosen?.id ?? ''
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
