import { element, scrollRegion } from '../../element.js'
import { duration, number } from '../../format.js'
import { requestButton } from '../../request-link.js'
import { serviceNow } from '../../samples.js'
import { describe, pickColour } from './bars.js'

/** @typedef {import('../../../src/ops/live-samples.ts').OpsSample['compute']['kinds'][number]} Kind */

const LATEST = 12
const STATES = /** @type {const} */ (['done', 'failed', 'running', 'queued'])

/** The tasks of the last ten minutes by kind: how many in which state, as a bar and as numbers. */
export function kindsTable() {
  const body = element('tbody')
  const states = STATES.map((state) =>
    element(
      'th',
      { scope: 'col', className: 'number' },
      element('i', { className: `key tall ${state}` }),
      state,
    ),
  )
  const head = element(
    'tr',
    {},
    element('th', { scope: 'col' }, 'Task'),
    element('th', { scope: 'col', className: 'share' }, 'Last ten minutes'),
    ...states,
    element('th', { scope: 'col', className: 'number' }, 'per second'),
    element('th', { scope: 'col', className: 'number' }, 'median run'),
  )
  const table = element('table', { className: 'kinds' }, element('thead', {}, head), body)
  const empty = element('p', { className: 'hint' }, 'No task has run in the last ten minutes.')
  const scroll = scrollRegion('Tasks by kind', table)
  /** @param {Kind[]} kinds */
  const show = (kinds) => {
    const byName = kinds.toSorted((one, other) => one.task.localeCompare(other.task))
    body.replaceChildren(...byName.map(toRow))
    scroll.hidden = kinds.length === 0
    empty.hidden = kinds.length > 0
  }
  show([])
  return { element: element('div', {}, scroll, empty), show }
}

/** @param {Kind} kind */
function toRow(kind) {
  const key = element('i', { className: 'key tall' })
  key.style.setProperty('background', `var(${pickColour(kind.task)})`)
  const bar = element('div', { className: 'stack', 'aria-hidden': 'true' })
  for (const state of STATES) {
    if (kind[state] === 0) continue
    const part = element('i', { className: state })
    part.style.flexGrow = `${kind[state]}`
    bar.append(part)
  }
  return element(
    'tr',
    {},
    element('th', { scope: 'row' }, key, kind.task),
    element('td', {}, bar),
    ...[...STATES.map((state) => number(kind[state])), number(kind.perSecond)].map((text) =>
      element('td', { className: 'number' }, text),
    ),
    element('td', { className: 'number' }, duration(kind.medianMs)),
  )
}

/**
 * The latest bars as text, for keyboards and screen readers; filled only while it is open.
 *
 * @param {(count: number) => import('./bars.js').Bar[]} read at least so many of the latest
 */
export function latestTable(read) {
  const body = element('tbody')
  const head = ['What', 'Where', 'Length', 'Waited', 'Outcome', 'Request'].map((name) =>
    element('th', { scope: 'col' }, name),
  )
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...head)), body)
  const details = element(
    'details',
    {},
    element('summary', {}, 'Latest tasks and blocks'),
    scrollRegion('Latest tasks and blocks', table),
  )
  const show = () => {
    // A button that has the focus stays.
    if (!details.open || body.contains(document.activeElement)) return
    const newest = read(LATEST)
      .sort((one, other) => other.endedAt - one.endedAt || other.startedAt - one.startedAt)
      .slice(0, LATEST)
    body.replaceChildren(...newest.map(toLatestRow))
  }
  details.addEventListener('toggle', show)
  return { element: details, show }
}

/** @param {import('./bars.js').Bar} bar */
function toLatestRow(bar) {
  const { what, length, waited, outcome } = describe(bar, serviceNow())
  return element(
    'tr',
    {},
    ...[what, bar.thread, length, waited, outcome].map((text) => element('td', {}, text)),
    element('td', {}, bar.requestId === undefined ? '–' : requestButton(bar.requestId)),
  )
}
