import { onThemeChange } from '../chart.js'
import { element } from '../element.js'
import { duration, number } from '../format.js'
import { onSamples, serviceNow } from '../samples.js'
import { AXIS_HEIGHT, drawLanes, pickColour, QUEUE_HEIGHT } from './threads/lanes.js'
import { firstEndingAfter, KEPT_MS, SpanStore } from './threads/spans.js'
import { control, Timeline } from './threads/timeline.js'

/** @typedef {import('../../src/ops/live-spans.ts').TaskSpan} Span */
/** @typedef {import('../../src/ops/live-samples.ts').OpsSample} Sample */

const LANE_HEIGHT = 30
/** With many threads. */
const LOW_LANE_HEIGHT = 18
const MANY_THREADS = 12
const LATEST = 8

/**
 * A lane for each worker thread, with its tasks as bars in time.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'Threads', order: 20, access: 'operate', width: 'wide', mount }

/** For tests, `section.lanes` has all spans and the timeline. */
function mount(
  /** @type {HTMLElement & { lanes?: { spans: Span[], timeline: Timeline } }} */ section,
  /** @type {import('../live.js').PanelContext} */ context,
) {
  const store = new SpanStore()
  const timeline = new Timeline(() => changed())
  /** @type {Sample[]} */
  let samples = []
  /** When the page was not subscribed; at first, all time before. @type {{ from: number, to: number }[]} */
  const gaps = [{ from: 0, to: Number.POSITIVE_INFINITY }]
  /** @type {Span | undefined} */
  let chosen
  let leftOut = 0
  let isDirty = true

  const canvas = element('canvas', { 'aria-hidden': 'true' })
  const tip = element('div', { className: 'tip', hidden: true })
  const names = element('ul', { className: 'lane-names' })
  const surface = element(
    'div',
    {
      className: 'lane-surface',
      tabIndex: 0,
      role: 'group',
      'aria-label': 'Timeline of the worker threads',
      'aria-describedby': 'threads-keys',
    },
    canvas,
    tip,
  )
  const legend = element('ul', { className: 'legend' })
  const latest = latestTasks(() => store.all)
  const { bar, showState } = toolbar(timeline)
  section.append(
    element('div', { className: 'toolbar' }, section.firstElementChild ?? '', bar),
    element(
      'p',
      { className: 'hint', id: 'threads-keys' },
      'Each bar is a task on its thread. Drag or ← → to move, + − or the wheel to zoom, space to pause.',
    ),
    element('div', { className: 'lanes' }, names, surface),
    legend,
    latest.details,
  )
  section.lanes = {
    get spans() {
      return store.all
    },
    timeline,
  }

  function changed() {
    isDirty = true
    showState()
  }

  /** Updates names and heights after a change of threads or tasks. */
  function layOut() {
    const height = laneHeight()
    const newest = samples.at(-1)
    names.style.setProperty('--lane', `${height}px`)
    names.replaceChildren(
      ...[...store.lanes.keys()].map((thread) => element('li', {}, thread)),
      element(
        'li',
        { className: 'queue' },
        'queue ',
        element('b', {}, number(newest?.compute.queued)),
      ),
    )
    canvas.style.setProperty(
      'height',
      `${store.lanes.size * height + QUEUE_HEIGHT + AXIS_HEIGHT}px`,
    )
    const tasks = [...new Set(store.all.map(({ task }) => task))].sort()
    legend.replaceChildren(
      ...tasks.map((task) => {
        const key = element('i', { className: 'key tall' })
        key.style.setProperty('background', `var(${pickColour(task)})`)
        return element('li', {}, key, task)
      }),
      ...(tasks.length === 0
        ? [element('li', {}, 'No task has run since this page was opened.')]
        : []),
      ...(leftOut > 0 ? [element('li', {}, `${number(leftOut)} short tasks not shown`)] : []),
    )
    isDirty = true
  }

  const laneHeight = () => (store.lanes.size > MANY_THREADS ? LOW_LANE_HEIGHT : LANE_HEIGHT)

  /** Chooses the span under the pointer. @param {PointerEvent} event */
  function point({ offsetX, offsetY, clientX, clientY }) {
    const time = timeline.start + (offsetX / surface.clientWidth) * timeline.widthMs
    const reach = (2 / surface.clientWidth) * timeline.widthMs
    const spans = [...store.lanes.values()][Math.floor(offsetY / laneHeight())] ?? []
    const span = spans[firstEndingAfter(spans, time - reach)]
    choose(span && span.startedAt <= time + reach ? span : undefined)
    if (!chosen) return
    const isLeft = offsetX < surface.clientWidth / 2
    tip.style.left = isLeft ? `${clientX + 12}px` : 'auto'
    tip.style.right = isLeft ? 'auto' : `${document.documentElement.clientWidth - clientX + 12}px`
    tip.style.top = `${clientY + 12}px`
  }

  /** @param {Span | undefined} span */
  function choose(span) {
    if (span === chosen) return
    chosen = span
    isDirty = true
    tip.hidden = !span
    if (span) tip.replaceChildren(...describe(span))
  }

  surface.addEventListener('pointermove', point)
  surface.addEventListener('pointerleave', () => choose(undefined))
  control(surface, timeline)

  const { live } = context
  live.on('ops.spans', (/** @type {import('../../src/ops/live-spans.ts').SpanBatch} */ batch) => {
    store.add(batch.spans)
    leftOut += batch.leftOut
    layOut()
    latest.show()
  })
  onSamples(context, (past) => {
    samples = past
    const present = samples.at(-1)?.compute.threads.map(({ name }) => name) ?? []
    for (const thread of present) store.addThread(thread)
    store.forgetBefore(serviceNow() - KEPT_MS)
    store.forgetThreads(new Set(present))
    layOut()
  })
  live.onState((state) => {
    const last = gaps.at(-1)
    const isOpen = last?.to === Number.POSITIVE_INFINITY
    if (state === 'live' && isOpen && last) last.to = serviceNow()
    if (state !== 'live' && !isOpen) gaps.push({ from: serviceNow(), to: Number.POSITIVE_INFINITY })
  })
  onThemeChange(changed)
  new ResizeObserver(changed).observe(surface)

  const isCalm = matchMedia('(prefers-reduced-motion: reduce)')
  let shownEnd = 0
  /** Draws whenever the lanes move by a pixel; with reduced motion, once a second. */
  function animate() {
    const movedBy = Math.abs(timeline.end - shownEnd)
    const minimumMs = isCalm.matches ? 1_000 : timeline.widthMs / Math.max(1, surface.clientWidth)
    if (isDirty || movedBy >= minimumMs) {
      isDirty = false
      shownEnd = timeline.end
      drawLanes(canvas, {
        lanes: store.lanes,
        laneHeight: laneHeight(),
        samples,
        gaps,
        start: timeline.start,
        end: timeline.end,
        chosen,
      })
    }
    requestAnimationFrame(animate)
  }
  layOut()
  animate()
}

/** @param {Timeline} timeline */
function toolbar(timeline) {
  /** @param {string} text @param {string} label @param {() => void} onclick */
  const button = (text, label, onclick) =>
    element('button', { type: 'button', className: 'small', 'aria-label': label, onclick }, text)
  const pause = element('button', {
    type: 'button',
    className: 'small',
    onclick: () => (timeline.isLive ? timeline.pause() : timeline.follow()),
  })
  const width = element('span', { className: 'aside' })
  const showState = () => {
    pause.textContent = timeline.isLive ? 'Pause' : 'Go live'
    width.textContent = duration(timeline.widthMs)
  }
  showState()
  const bar = element(
    'div',
    { className: 'row' },
    width,
    button('←', 'Earlier', () => timeline.step(-1)),
    button('→', 'Later', () => timeline.step(1)),
    button('−', 'Zoom out', () => timeline.zoom(-1)),
    button('+', 'Zoom in', () => timeline.zoom(1)),
    pause,
  )
  return { bar, showState }
}

/** @param {Span} span */
const describe = ({ task, count, thread, runMs, queuedMs, outcome, requestId }) => [
  element('b', {}, count === 1 ? task : `${task} × ${number(count)}`),
  element('span', {}, `${duration(runMs)} on ${thread}`),
  element('span', {}, `waited ${duration(queuedMs)}`),
  element('span', {}, outcome.replace('_', ' ')),
  element('code', {}, requestId ?? (count === 1 ? 'no request' : 'several requests')),
]

/**
 * The latest spans as text, for screen readers; filled only while it is open.
 *
 * @param {() => Span[]} read
 */
function latestTasks(read) {
  const body = element('tbody')
  const head = ['Task', 'Thread', 'Run', 'Waited', 'Outcome', 'Request'].map((name) =>
    element('th', { scope: 'col' }, name),
  )
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...head)), body)
  const details = element(
    'details',
    {},
    element('summary', {}, 'Latest tasks'),
    element('div', { className: 'scroll' }, table),
  )
  const show = () => {
    if (!details.open) return
    const newest = read()
      .sort((one, other) => other.endedAt - one.endedAt)
      .slice(0, LATEST)
    body.replaceChildren(
      ...newest.map(({ task, thread, runMs, queuedMs, outcome, requestId, count }) =>
        element(
          'tr',
          {},
          ...[
            count === 1 ? task : `${task} × ${count}`,
            thread,
            duration(runMs),
            duration(queuedMs),
            outcome,
            requestId ?? '–',
          ].map((text) => element('td', {}, text)),
        ),
      ),
    )
  }
  details.addEventListener('toggle', show)
  return { details, show }
}
