import { element, scrollRegion } from '../../element.js'
import { duration, number, timeOfDay } from '../../format.js'
import { requestButton } from '../../request-link.js'

/** Of the input, and of the result. */
const MAX_CHARACTERS = 10_000
const TONES = { succeeded: 'good', failed: 'bad', lost: 'bad', cancelled: '', released: 'warn' }

/** @typedef {import('../../../src/features/jobs-admin/routes.ts').JobDetail} JobDetail */
/** @typedef {JobDetail['attempts'][number]} Attempt */

/** The time of day, with the day unless it is today's. @param {string} text */
export function moment(text) {
  const when = new Date(text)
  if (when.toDateString() === new Date().toDateString()) return timeOfDay(when)
  const day = when.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })
  return `${day} ${timeOfDay(when)}`
}

/** @typedef {{ id: string, kind: string }} Named */

/** The end of an id is random. @param {Named} job */
export const nameOf = ({ id, kind }) => `${kind} ${id.slice(-6)}`

/** @param {string} from @param {string | null} to now if null */
const span = (from, to) => (to ? Date.parse(to) : Date.now()) - Date.parse(from)

/** The focus stays where it was. @param {HTMLElement} place @param {JobDetail} job */
export function showDetail(place, job) {
  const focused = place.contains(document.activeElement)
    ? document.activeElement?.getAttribute('aria-label')
    : null
  const parts = [facts(job), timeline(job), ...attemptTable(job), ...texts(job)]
  place.replaceChildren(...parts)
  if (!focused) return
  const same = [...place.querySelectorAll('[aria-label]')].find(
    (one) => one.getAttribute('aria-label') === focused,
  )
  if (same instanceof HTMLElement) same.focus()
}

/** @param {JobDetail} job */
function facts({ subject, key, priority, requestId, ...job }) {
  const list = element('dl', { className: 'facts' })
  /** @type {[string, string | Node | null][]} */
  const all = [
    ['Id', element('code', {}, job.id)],
    ['Enqueued by', subject ?? 'a schedule, or the service itself'],
    ['Request', requestId && requestButton(requestId, nameOf(job))],
    ['Dedupe key', key],
    ['Priority', priority === 0 ? null : `${priority}`],
  ]
  for (const [name, value] of all)
    if (value !== null)
      list.append(element('div', {}, element('dt', {}, name), element('dd', {}, value)))
  return list
}

/** Waits and attempts as a bar, and in words. @param {JobDetail} job */
function timeline({ createdAt, runAt, startedAt, finishedAt, state, attempts, ...job }) {
  const bar = element('div', { className: 'timeline', 'aria-hidden': 'true' })
  let at = createdAt
  for (const attempt of attempts) {
    const startAt = attempt.startedAt
    bar.append(segment('wait', span(at, startAt)))
    bar.append(segment(attempt.outcome ?? 'running', span(startAt, attempt.finishedAt)))
    at = attempt.finishedAt ?? new Date().toISOString()
  }
  const isWaiting = ['scheduled', 'queued', 'parked'].includes(state)
  if (isWaiting) bar.append(segment('wait', span(at, null)))
  /** @type {(string | false | null)[]} */
  const words = [
    `Created ${moment(createdAt)}`,
    runAt && `scheduled for ${moment(runAt)}`,
    isWaiting && `waiting for ${duration(Math.max(0, span(at, null)))}`,
    startedAt && `last started ${moment(startedAt)}, ${duration(span(createdAt, startedAt))} later`,
    state === 'running' && startedAt && `running for ${duration(span(startedAt, null))}`,
    finishedAt && `${state} ${moment(finishedAt)}`,
    finishedAt && startedAt && `after ${duration(span(startedAt, finishedAt))}`,
  ]
  const items = words.filter(Boolean).map((text) => element('li', {}, /** @type {string} */ (text)))
  const list = element('ol', { 'aria-label': `Timeline of ${nameOf(job)}` }, ...items)
  return element('div', {}, bar, list)
}

/** @param {string} what @param {number} ms */
function segment(what, ms) {
  const part = element('i', { 'data-what': what })
  part.style.flexGrow = `${Math.max(0, ms)}`
  return part
}

/** @param {JobDetail} job */
function attemptTable({ attempts, ...job }) {
  if (attempts.length === 0) return []
  const names = ['Attempt', 'Started', 'Took', 'Outcome', 'Worker', 'Error']
  const heads = names.map((text) => element('th', { scope: 'col' }, text))
  const rows = attempts.map((attempt) => element('tr', {}, ...cells(attempt)))
  const table = element(
    'table',
    {},
    element('thead', {}, element('tr', {}, ...heads)),
    element('tbody', {}, ...rows),
  )
  return [scrollRegion(`Attempts of ${nameOf(job)}`, table)]
}

/** @param {Attempt} attempt */
function cells({ attempt, startedAt, finishedAt, outcome, worker, error }) {
  const badge = element('span', { className: 'badge' }, outcome ?? 'running')
  badge.dataset.tone = outcome ? TONES[outcome] : 'info'
  const took = `${duration(span(startedAt, finishedAt))}${finishedAt ? '' : ' so far'}`
  const contents = [`${attempt}`, moment(startedAt), took, badge, worker, error ?? '']
  return contents.map((content) => element('td', {}, content))
}

/** @param {JobDetail} job */
const texts = ({ lastError, input, result, ...job }) => [
  ...(lastError === null ? [] : text('Last error', job, lastError)),
  ...text('Input', job, JSON.stringify(input, null, 2)),
  ...(result === null ? [] : text('Result', job, JSON.stringify(result, null, 2))),
]

/** @param {string} title @param {Named} job @param {string} whole */
function text(title, job, whole) {
  const isCut = whole.length > MAX_CHARACTERS
  const sizes = `${number(MAX_CHARACTERS)} of ${number(whole.length)} characters`
  const heading = isCut ? `${title}, shown in part: ${sizes}` : title
  const options = { tabIndex: 0, role: 'region', 'aria-label': `${title} of ${nameOf(job)}` }
  return [
    element('h3', {}, heading),
    element('pre', options, isCut ? whole.slice(0, MAX_CHARACTERS) : whole),
  ]
}
