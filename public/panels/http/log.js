import { element, scrollRegion } from '../../element.js'
import { duration, number, timeOfDay } from '../../format.js'

/** @typedef {import('../../../src/ops/live-requests.ts').OpsRequests} OpsRequests */
/** @typedef {OpsRequests['latest'][0]} LoggedRequest */
/** @typedef {ReturnType<typeof toEntry>} Entry */

const MAX_KEPT = 200
/** Otherwise the keyboard would pass 200 rows on its way. */
const SHOWN_FIRST = 20
const MAX_JOBS = 20
const HEADS = ['Request', 'Status', 'Took', 'SQL', 'Caller', 'Request id', 'Time']
const NUMBERS = ['Took', 'SQL']
/** A status such as `503`, or a class of them such as `5xx`. */
const STATUS = /^[1-5](\d\d|xx)$/i

/**
 * The latest requests, the newest first. A row opens to what its request did.
 *
 * @param {object} options
 * @param {import('../../live.js').PanelContext['api']} options.api
 * @param {() => Promise<void>} options.read reads what the service has kept
 */
export function requestLog({ api, read }) {
  const filter = element('input', {
    type: 'search',
    placeholder: 'Route, status, request id or caller',
    'aria-label': 'Filter the latest requests by route, status, request id or caller',
    oninput() {
      message.textContent = ''
      draw()
    },
  })
  const pause = element(
    'button',
    {
      type: 'button',
      'aria-pressed': 'false',
      'aria-label': 'Pause the latest requests',
      onclick: () => setPaused(!isPaused),
    },
    'Pause',
  )
  const hint = element('span', { className: 'hint' })
  const message = element('span', { className: 'error', role: 'status' })
  const heads = HEADS.map((head) =>
    element('th', { scope: 'col', className: NUMBERS.includes(head) ? 'number' : '' }, head),
  )
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...heads)))
  const empty = element('p', { className: 'empty' })
  const title = 'Latest requests'
  const scroll = scrollRegion(title, table, empty)
  scroll.classList.add('log')

  const showAll = element('button', { type: 'button', className: 'small', onclick: expand })

  /** The newest first. @type {Entry[]} */
  let entries = []
  /** Came while paused. @type {LoggedRequest[]} */
  let waiting = []
  let isPaused = false
  let isExpanded = false
  let leftOut = 0

  /** @param {Pick<OpsRequests, 'latest' | 'leftOut'>} batch */
  function add(batch) {
    leftOut = batch.leftOut
    waiting = [...waiting, ...batch.latest].slice(-MAX_KEPT)
    if (!isPaused) takeWaiting()
  }

  function takeWaiting() {
    const known = new Map(entries.map((entry) => [entry.key, entry]))
    for (const request of waiting) {
      const key = toKey(request)
      if (!known.has(key)) known.set(key, toEntry(request, toggle))
    }
    waiting = []
    entries = [...known.values()].sort((one, other) => other.endedAt - one.endedAt)
    for (const { body } of entries.slice(MAX_KEPT)) body.remove()
    entries = entries.slice(0, MAX_KEPT)
  }

  function draw() {
    const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean)
    const found = entries.filter(({ request }) => terms.every((term) => matches(request, term)))
    // What is read or has the focus stays.
    const isInUse = (/** @type {Entry} */ { body, details }) =>
      details || body.contains(document.activeElement)
    const shown = new Set(
      found.filter((entry, place) => isExpanded || place < SHOWN_FIRST || isInUse(entry)),
    )
    for (const [place, entry] of entries.entries()) {
      const { body } = entry
      body.hidden = !shown.has(entry)
      // After the head.
      const before = table.children[place + 1]
      if (before !== body) table.insertBefore(body, before ?? null)
    }
    showAll.hidden = shown.size === found.length
    showAll.textContent = `Show all ${number(found.length)} requests`
    empty.hidden = found.length > 0
    empty.textContent = terms.length > 0 ? 'No request matches the filter.' : 'No requests yet.'
    hint.textContent = [
      `${number(found.length)} of ${number(entries.length)}`,
      isPaused ? `${number(waiting.length)} new while paused` : '',
      leftOut > 0 ? `${number(leftOut)} left out in the last second` : '',
    ]
      .filter(Boolean)
      .join(', ')
  }

  function expand() {
    isExpanded = true
    draw()
    scroll.focus()
  }

  /** @param {boolean} value */
  function setPaused(value) {
    isPaused = value
    pause.setAttribute('aria-pressed', `${value}`)
    if (!value) takeWaiting()
    draw()
  }

  /** @param {Entry} entry */
  function toggle(entry) {
    if (entry.details) return entry.close()
    for (const other of entries) other.close()
    entry.open(api)
    // Otherwise new rows would push it away.
    setPaused(true)
  }

  /** Opens the request's row, and moves the focus there. @param {string} requestId */
  async function find(requestId) {
    filter.value = requestId
    message.textContent = ''
    const lookUp = () => {
      takeWaiting()
      draw()
      return entries.find(({ request }) => request.requestId === requestId)
    }
    let entry = lookUp()
    if (!entry) {
      await read()
      entry = lookUp()
    }
    if (entry) {
      if (!entry.details) toggle(entry)
      entry.button.scrollIntoView({ block: 'center' })
      entry.button.focus()
    } else {
      message.textContent = `Request ${requestId} is not among the latest ${MAX_KEPT}`
      filter.focus()
    }
  }

  draw()
  const tools = element('div', { className: 'row' }, filter, pause, hint, message)
  return { blocks: [element('h3', {}, title), tools, scroll, showAll], add, draw, find }
}

/** Request ids are the clients', and may repeat. @param {LoggedRequest} request */
const toKey = ({ startedAt, requestId }) => `${startedAt} ${requestId}`

/** @param {LoggedRequest} request */
const toName = ({ method, route }) => nameRoute(`${method} ${route}`)

/** Where no route matches, only the service's middleware does. @param {string} route */
export const nameRoute = (route) => route.replace(/ \/\*$/, ' (no such route)')

/** @param {LoggedRequest} request @param {string} term in lower case */
function matches(request, term) {
  const { status, requestId, subject, client } = request
  if (STATUS.test(term))
    return term.endsWith('xx') ? `${status}`[0] === term[0] : `${status}` === term
  return [toName(request), requestId, subject, client].some((text) =>
    text?.toLowerCase().includes(term),
  )
}

/** @param {LoggedRequest} request @param {(entry: Entry) => void} toggle */
function toEntry(request, toggle) {
  const { status, ms, requestId, client, subject, startedAt } = request
  const name = toName(request)
  const button = element(
    'button',
    {
      type: 'button',
      className: 'open',
      'aria-expanded': 'false',
      'aria-label': `${name}, request ${requestId}`,
      onclick: () => toggle(entry),
    },
    name,
  )
  const tone = status >= 500 ? 'bad' : status >= 400 ? 'warn' : 'good'
  const badge = element('span', { className: 'badge', 'data-tone': tone }, `${status}`)
  const row = element(
    'tr',
    { 'data-request': requestId },
    element('th', { scope: 'row' }, button),
    element('td', {}, badge),
    element('td', { className: 'number' }, duration(ms)),
    element('td', { className: 'number' }, number(request.statementCount)),
    element('td', {}, subject ?? client ?? ''),
    element('td', {}, element('code', {}, requestId)),
    element('td', {}, timeOfDay(startedAt)),
  )
  const body = element('tbody', {}, row)
  const entry = {
    key: toKey(request),
    endedAt: startedAt + ms,
    request,
    body,
    button,
    /** @type {HTMLTableRowElement | undefined} */
    details: undefined,
    /** @param {import('../../live.js').PanelContext['api']} api */
    open(api) {
      const all = element('div', {}, ...details(request, api))
      const cell = element('td', { colSpan: HEADS.length }, all)
      entry.details = element('tr', { className: 'details' }, cell)
      body.append(entry.details)
      button.setAttribute('aria-expanded', 'true')
    },
    close() {
      entry.details?.remove()
      entry.details = undefined
      button.setAttribute('aria-expanded', 'false')
    },
  }
  return entry
}

/** @param {LoggedRequest} request @param {import('../../live.js').PanelContext['api']} api */
function details({ requestId, statements, statementCount, tasks }, api) {
  const sql = statements.map(({ text, ms }) =>
    item(element('code', {}, text), ms === undefined ? 'running' : duration(ms)),
  )
  if (statementCount > statements.length)
    sql.push(element('li', {}, `and ${number(statementCount - statements.length)} more`))
  const runs = tasks.map(({ task, outcome, count, queuedMs, runMs }) =>
    item(
      element('b', {}, count > 1 ? `${task} × ${number(count)}` : task),
      `ran ${duration(runMs)}, waited ${duration(queuedMs)}, ${outcome.replace('_', ' ')}`,
    ),
  )
  const jobs = element('div', {}, element('p', { className: 'hint' }, 'Reading its jobs …'))
  void readJobs(requestId, api).then((found) => jobs.replaceChildren(found))
  return [
    block('SQL statements', list('ol', sql)),
    block('Tasks on worker threads', list('ul', runs)),
    block('Jobs it enqueued', jobs),
  ]
}

/** @param {string} requestId @param {import('../../live.js').PanelContext['api']} api */
async function readJobs(requestId, api) {
  const query = new URLSearchParams({ requestId, limit: `${MAX_JOBS}` })
  try {
    /** @type {{ items: { id: string, kind: string, state: string }[] }} */
    const { items } = await api('GET', `/v1/jobs?${query}`, { background: true })
    return list(
      'ul',
      items.map(({ id, kind, state }) =>
        item(element('b', {}, kind), state, element('code', {}, id)),
      ),
    )
  } catch (error) {
    return element('p', { className: 'error' }, /** @type {Error} */ (error).message)
  }
}

/** @param {string} title @param {HTMLElement} content */
const block = (title, content) => element('div', {}, element('h4', {}, title), content)

/** @param {(Node | string)[]} parts */
const item = (...parts) =>
  element('li', {}, ...parts.flatMap((part, place) => (place > 0 ? [' ', part] : [part])))

/** @param {'ol' | 'ul'} name @param {HTMLElement[]} items */
const list = (name, items) =>
  items.length > 0 ? element(name, {}, ...items) : element('p', { className: 'hint' }, 'None')
