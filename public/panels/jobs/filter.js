import { element } from '../../element.js'
import { number } from '../../format.js'

export const STATES = /** @type {const} */ ([
  'scheduled',
  'queued',
  'running',
  'parked',
  'succeeded',
  'failed',
  'cancelled',
])
/** The service counts no further. */
const MAX_COUNTED = 100_000
const PREFIX = '#jobs?'
const TYPING_MS = 300
const PERIODS = { hour: 'Last hour', day: 'Last day' }
const PERIOD_MS = { hour: 3_600_000, day: 86_400_000 }

/**
 * @typedef {object} Filter
 * @property {typeof STATES[number]} [state]
 * @property {string} [kind]
 * @property {string} [key]
 * @property {keyof typeof PERIODS} [since]
 */

/** The filter as the API takes it. @param {Filter} filter */
export const toConditions = ({ since, ...others }) =>
  since
    ? { ...others, createdAfter: new Date(Date.now() - PERIOD_MS[since]).toISOString() }
    : others

/** @param {Filter & { limit?: number, cursor?: string }} filter */
export function toQuery(filter) {
  const given = Object.entries(toConditions(filter)).filter(([, value]) => value !== undefined)
  return new URLSearchParams(given.map(([name, value]) => [name, `${value}`]))
}

/** @param {number} count */
export const countText = (count) =>
  count >= MAX_COUNTED ? `${number(MAX_COUNTED)}+` : number(count)

/** Also after a reload, and in a link. @returns {Filter} */
function readHash() {
  const given = new URLSearchParams(
    location.hash.startsWith(PREFIX) ? location.hash.slice(PREFIX.length) : '',
  )
  const state = STATES.find((name) => name === given.get('state'))
  const since = /** @type {const} */ (['hour', 'day']).find((name) => name === given.get('since'))
  const [kind, key] = [given.get('kind'), given.get('key')]
  return {
    ...(state && { state }),
    ...(since && { since }),
    ...(kind && { kind }),
    ...(key && { key }),
  }
}

/** @param {Filter} filter */
function writeHash(filter) {
  const text = new URLSearchParams(Object.entries(filter)).toString()
  const isOurs = location.hash.startsWith(PREFIX)
  if (!text && !isOurs) return
  const hash = text ? PREFIX + text : ''
  history.replaceState(history.state, '', location.pathname + location.search + hash)
}

/** Buttons with counts, and fields. @param {() => void} onChange */
export function jobFilter(onChange) {
  let filter = readHash()
  const counts = new Map(STATES.map((state) => [state, element('b')]))
  const states = [undefined, ...STATES].map((state) => {
    const count = state && counts.get(state)
    const label = state ? [`${state} `, ...(count ? [count] : [])] : ['All']
    const button = element('button', { type: 'button', className: 'small' }, ...label)
    button.onclick = () => change({ state: filter.state === state ? undefined : state })
    return { button, isChosen: () => filter.state === state }
  })
  const periods = /** @type {const} */ ([undefined, 'hour', 'day']).map((since) => {
    const text = since ? PERIODS[since] : 'Any time'
    const button = element('button', { type: 'button', className: 'small' }, text)
    button.onclick = () => change({ since })
    return { button, isChosen: () => filter.since === since }
  })
  const kinds = element('datalist', { id: 'job-kinds' })
  const kind = field('Kind', { pattern: '[!-~]{1,100}', title: 'No spaces' })
  kind.input.setAttribute('list', kinds.id)
  const key = field('Dedupe key', { title: 'Only unfinished jobs have one' })
  const form = element('form', { className: 'filters' }, group('State', states))
  form.append(element('div', { className: 'row' }, kind.label, key.label, kinds))
  form.lastElementChild?.append(group('Created', periods))
  form.onsubmit = (event) => event.preventDefault()

  /** @param {string} text @param {object} options */
  function field(text, options) {
    const input = element('input', { type: 'search', autocomplete: 'off', ...options })
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer
    input.oninput = () => {
      clearTimeout(timer)
      timer = setTimeout(() => input.checkValidity() && change({}), TYPING_MS)
    }
    return { input, label: element('label', {}, text, input) }
  }

  /** @param {{ [Name in keyof Filter]?: Filter[Name] }} changes */
  function change(changes) {
    const typed = { kind: kind.input.value, key: key.input.value }
    const given = Object.entries({ ...filter, ...typed, ...changes }).filter(([, value]) => value)
    filter = Object.fromEntries(given)
    writeHash(filter)
    draw()
    onChange()
  }

  function draw() {
    for (const { button, isChosen } of [...states, ...periods])
      button.setAttribute('aria-pressed', String(isChosen()))
    kind.input.value = filter.kind ?? ''
    key.input.value = filter.key ?? ''
  }
  draw()
  addEventListener('hashchange', () => {
    filter = readHash()
    draw()
    onChange()
  })

  return {
    form,
    value: () => filter,
    isAny: () => Object.keys(filter).length === 0,
    /** @param {import('../jobs.js').Counts} found */
    showCounts(found) {
      for (const [state, count] of counts) count.textContent = countText(found[state])
    },
    /** @param {{ kind: string }[]} items */
    showKinds(items) {
      kinds.replaceChildren(...items.map((item) => element('option', { value: item.kind })))
    },
  }
}

/** @param {string} name @param {{ button: HTMLElement }[]} choices */
const group = (name, choices) =>
  element(
    'div',
    { className: 'row', role: 'group', 'aria-label': name },
    ...choices.map(({ button }) => button),
  )
