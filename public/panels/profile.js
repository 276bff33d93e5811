import { element, scrollRegion } from '../element.js'
import { number } from '../format.js'
import { onSamples } from '../samples.js'
import { buildTree, search } from './profile/call-tree.js'
import { CATEGORIES, FlameGraph, formatTime } from './profile/flame-graph.js'
import { heapSection, readFileName, save } from './profile/heap.js'

/** @typedef {import('./profile/call-tree.js').CallTree} CallTree */

const EVENT_LOOP = 'event-loop'
const SECONDS = { min: 5, max: 30, first: 5 }
const PROGRESS_EVERY_MS = 200
const LISTED = 20

/**
 * What the event loop or a thread spends its time on, as a flame graph, and where memory goes.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'Profile', order: 50, access: 'operate', width: 'full', mount }

/** For tests, `section.flameGraph` is the graph. */
function mount(
  /** @type {HTMLElement & { flameGraph?: FlameGraph }} */ section,
  /** @type {import('../live.js').PanelContext} */ context,
) {
  const result = resultSection()
  section.flameGraph = result.graph
  section.append(...recorder(context, result.show), result.section, heapSection(context))
}

/**
 * @param {import('../live.js').PanelContext} context
 * @param {(recorded: Recorded) => void} show
 */
function recorder(context, show) {
  const { api, live } = context
  const target = element('select', { id: 'profile-target' })
  const seconds = element('input', {
    type: 'number',
    id: 'profile-seconds',
    min: `${SECONDS.min}`,
    max: `${SECONDS.max}`,
    value: `${SECONDS.first}`,
    required: true,
  })
  const start = element('button', { type: 'button', className: 'primary' }, 'Record')
  const stop = element(
    'button',
    { type: 'button', disabled: true, 'aria-label': 'Stop recording' },
    'Stop',
  )
  const progress = element('progress', { max: 1, hidden: true, 'aria-label': 'Recorded' })
  const left = element('p', { className: 'hint' })
  const status = element('p', { className: 'hint', role: 'status' })
  start.onclick = () => seconds.reportValidity() && record()
  stop.onclick = () =>
    api('DELETE', '/v1/ops/profiles/current').catch(({ message }) => say(message, true))

  async function record() {
    const input = { target: target.value, seconds: seconds.valueAsNumber }
    const stopProgress = showProgress(input.seconds)
    setBusy(true)
    say(`Recording ${describeTarget(input.target)}`)
    try {
      const response = await api('POST', '/v1/ops/profiles', { body: input })
      const blob = await response.blob()
      const profile = JSON.parse(await blob.text())
      // Each takes 0.1 s for 100,000 nodes.
      await new Promise((resume) => setTimeout(resume))
      const tree = buildTree(profile, input.target === EVENT_LOOP ? 'loop' : 'thread')
      show({ tree, blob, fileName: readFileName(response) })
      say(summarise(input.target, tree))
    } catch (error) {
      say(/** @type {Error} */ (error).message, true)
    } finally {
      stopProgress()
      setBusy(false)
    }
  }

  /** @param {number} lasts in seconds */
  function showProgress(lasts) {
    const startedAt = performance.now()
    const update = () => {
      const share = (performance.now() - startedAt) / 1_000 / lasts
      progress.value = Math.min(1, share)
      left.textContent =
        share < 1 ? `${Math.ceil(lasts * (1 - share))} s left` : 'Waiting for the profile'
    }
    update()
    const timer = setInterval(update, PROGRESS_EVERY_MS)
    return () => {
      clearInterval(timer)
      left.textContent = ''
    }
  }

  /** @param {boolean} isBusy */
  function setBusy(isBusy) {
    for (const control of [start, target, seconds]) control.disabled = isBusy
    stop.disabled = !isBusy
    progress.hidden = !isBusy
  }

  /** @param {string} text */
  function say(text, isError = false) {
    status.textContent = text
    status.classList.toggle('error', isError)
  }

  onSamples(context, (samples) => {
    const threads = samples.at(-1)?.compute.threads.map(({ name }) => name) ?? []
    listTargets(target, [EVENT_LOOP, ...threads])
  })
  listTargets(target, [EVENT_LOOP])
  // An error of before the connection was lost says nothing of now.
  live.onReconnect(() => status.classList.contains('error') && say(''))

  return [
    element(
      'p',
      { className: 'hint' },
      'Shows which functions take the time. Recording works while the event loop is blocked; to start and to end it take the event loop some 50 ms.',
    ),
    element(
      'div',
      { className: 'row' },
      element('label', { htmlFor: target.id }, 'Profile of'),
      target,
      element('label', { htmlFor: seconds.id }, 'for'),
      seconds,
      element('span', {}, 'seconds'),
      start,
      stop,
    ),
    progress,
    left,
    status,
  ]
}

/** Keeps what is selected. @param {HTMLSelectElement} select @param {string[]} targets */
function listTargets(select, targets) {
  const { value } = select
  const shown = [...select.options].map((option) => option.value)
  if (shown.join() === targets.join()) return
  select.replaceChildren(
    ...targets.map((target) => element('option', { value: target }, describeTarget(target))),
  )
  if (targets.includes(value)) select.value = value
}

/** @param {string} target */
const describeTarget = (target) => (target === EVENT_LOOP ? 'the event loop' : target)

/** @param {string} target @param {CallTree} tree */
function summarise(target, { busyMs, idleMs, withoutCoreMs, samples }) {
  const allMs = busyMs + idleMs + withoutCoreMs
  const times = [
    `busy for ${formatTime(busyMs, allMs)}, which is drawn below`,
    `idle for ${formatTime(idleMs, allMs)}`,
    ...(withoutCoreMs > 0 ? [`without a core for ${formatTime(withoutCoreMs, allMs)}`] : []),
  ]
  return `${describeTarget(target)}: ${times.join('; ')}. ${number(samples)} samples.`
}

/** @typedef {{ tree: CallTree, blob: Blob, fileName: string }} Recorded */

/** The flame graph, its controls, and the table below. */
function resultSection() {
  /** @type {Recorded | undefined} */
  let recorded
  const zoomOut = element('button', { type: 'button', disabled: true }, 'Show all')
  const download = element('button', { type: 'button' }, 'Download .cpuprofile')
  const find = element('input', { type: 'search', id: 'profile-find' })
  const found = element('p', { className: 'hint', role: 'status' })
  const body = element('tbody')
  const graph = new FlameGraph({
    describedBy: 'profile-keys',
    onZoom: (isZoomed) => {
      zoomOut.disabled = !isZoomed
    },
  })
  zoomOut.onclick = () => graph.zoom()
  download.onclick = () => recorded && save(recorded.blob, recorded.fileName)
  find.oninput = () => showMatches()

  function showMatches() {
    if (!recorded) return
    const { matches, totalMs } = search(recorded.tree, find.value)
    graph.mark(matches)
    const functions = matches.size === 1 ? '1 function' : `${number(matches.size)} functions`
    const time = formatTime(totalMs, recorded.tree.busyMs)
    found.textContent = find.value.trim() ? `${functions}, in total ${time}` : ''
  }

  /** @param {Recorded} next */
  function show(next) {
    recorded = next
    section.hidden = false
    graph.show(next.tree)
    showMatches()
    body.replaceChildren(...listCallees(next.tree))
  }

  const keys =
    'Each bar is a function, below what called it, as wide as its time. Click or Enter zooms in, Escape out; the arrow keys move.'
  const legend = Object.values(CATEGORIES).map(({ label, colour }) => {
    const key = element('i', { className: 'key tall' })
    key.style.setProperty('background', `var(${colour})`)
    return element('li', {}, key, label)
  })
  const heads = ['Function', 'Self', 'Total'].map((text, index) =>
    element('th', { scope: 'col', className: index > 0 ? 'number' : '' }, text),
  )
  const table = element(
    'table',
    {},
    element('caption', {}, `The ${LISTED} functions that take the most time themselves`),
    element('thead', {}, element('tr', {}, ...heads)),
    body,
  )
  const section = element(
    'div',
    { className: 'profile', hidden: true },
    element(
      'div',
      { className: 'toolbar' },
      element(
        'div',
        { className: 'row' },
        element('label', { htmlFor: find.id }, 'Find a function'),
        find,
        found,
      ),
      element('div', { className: 'row' }, zoomOut, download),
    ),
    element('p', { className: 'hint', id: 'profile-keys' }, keys),
    graph.element,
    element('ul', { className: 'legend' }, ...legend),
    scrollRegion('Functions by time', table),
  )
  return { section, graph, show }
}

/** @param {CallTree} tree */
function listCallees({ callees, busyMs }) {
  const time = (/** @type {number} */ ms) =>
    element('td', { className: 'number' }, formatTime(ms, busyMs))
  return callees
    .filter(({ selfMs }) => selfMs > 0)
    .slice(0, LISTED)
    .map(({ name, place, selfMs, totalMs }) =>
      element(
        'tr',
        {},
        element('th', { scope: 'row' }, `${name} `, element('code', {}, place || 'native code')),
        time(selfMs),
        time(totalMs),
      ),
    )
}
