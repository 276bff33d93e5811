import { checkAccount, readAccount, showAccount, whyNot } from './account.js'
import { api } from './api.js'
import { element } from './element.js'
import { timeOfDay } from './format.js'
import { openLive } from './live.js'

/** Where the browser keeps whether the examples are folded. */
const EXAMPLES = 'examples'

const main = /** @type {HTMLElement} */ (document.querySelector('main'))

/** The server links each file in `panels/` in the page. */
const links = /** @type {NodeListOf<HTMLLinkElement>} */ (
  document.querySelectorAll('link[rel="modulepreload"]')
)
const panels = await Promise.all([...links].map(load))

/** @type {Error | undefined} */
let problem
const account = await readAccount().catch((error) => {
  problem = error
  return undefined
})

// Not before: panels must have subscribed by the time it is open.
const live = openLive()
live.onState(showState)

/** @type {import('./live.js').PanelContext} */
const context = { live, api, status: live.status, whyNot: (access) => whyNot(account, access) }

/** @type {HTMLElement | undefined} */
let examples
for (const { id, panel } of panels.sort((a, b) => a.panel.order - b.panel.order)) {
  if (panel.example) examples ??= addExamples()
  const title = element('h2', { id: `${id}-title` }, panel.title)
  const className = `panel ${panel.width}`
  const section = element('section', { id, className, 'aria-labelledby': title.id }, title)
  const place = (panel.example && examples) || main
  place.append(section)
  const refusal = whyNot(account, panel.access)
  if (refusal) {
    section.dataset.refused = ''
    section.append(element('p', { className: 'empty' }, refusal))
  } else panel.mount(section, context)
}
showAccount(account, context, problem)
live.onReconnect(() => checkAccount(account))

/** @param {HTMLLinkElement} link */
async function load({ href }) {
  /** @type {{ panel: import('./live.js').Panel }} */
  const { panel } = await import(href)
  return { id: href.replace(/^.*\/(.*)\.js$/, '$1'), panel }
}

/** @param {import('./live.js').LiveState} state @param {number | undefined} lostAt */
function showState(state, lostAt = 0) {
  const texts = {
    connecting: 'Connecting',
    live: 'Live',
    paused: 'Paused',
    offline: `Connection lost since ${timeOfDay(lostAt)}, retrying`,
  }
  const connection = /** @type {HTMLElement} */ (document.getElementById('connection'))
  connection.textContent = texts[state]
  connection.dataset.state = state
  main.dataset.state = state
}

/** Where panels of examples go; it stays folded for a reader who has folded it. */
function addExamples() {
  const place = element('div', { className: 'panels' })
  const section = element(
    'details',
    { className: 'examples', open: localStorage.getItem(EXAMPLES) !== 'folded' },
    element('summary', {}, element('h2', {}, 'Examples')),
    place,
  )
  section.addEventListener('toggle', () =>
    localStorage.setItem(EXAMPLES, section.open ? 'open' : 'folded'),
  )
  main.append(section)
  return place
}
