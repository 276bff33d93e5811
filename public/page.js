import { checkAccount, readAccount, showAccount, whyNot } from './account.js'
import { api } from './api.js'
import { element } from './element.js'
import { openLive } from './live.js'

const STATES = {
  connecting: 'Connecting',
  live: 'Live',
  paused: 'Paused',
  offline: 'Connection lost',
}

/** The server links each file in `panels/` in the page. */
const links = /** @type {NodeListOf<HTMLLinkElement>} */ (
  document.querySelectorAll('link[rel="modulepreload"]')
)
const panels = await Promise.all([...links].map(load))

/** @type {import('./account.js').Account | undefined} */
let account
try {
  account = await readAccount()
  showAccount(account)
} catch (error) {
  showAccount(undefined, /** @type {Error} */ (error).message)
}

// Not before: panels must have subscribed by the time it is open.
const live = openLive()
const connection = /** @type {HTMLElement} */ (document.getElementById('connection'))
live.onState((state) => {
  connection.dataset.state = state
  connection.textContent = STATES[state]
})

for (const { id, panel } of panels.sort((a, b) => a.panel.order - b.panel.order)) {
  const title = element('h2', { id: `${id}-title` }, panel.title)
  const className = `panel ${panel.width}`
  const section = element('section', { id, className, 'aria-labelledby': title.id }, title)
  document.getElementById('panels')?.append(section)
  const refusal = whyNot(account, panel.access)
  if (refusal) section.append(element('p', { className: 'empty' }, refusal))
  else panel.mount(section, { live, api, whyNot: (access) => whyNot(account, access) })
}
live.onReconnect(() => checkAccount(account))

/** @param {HTMLLinkElement} link */
async function load({ href }) {
  /** @type {{ panel: import('./live.js').Panel }} */
  const { panel } = await import(href)
  return { id: href.replace(/^.*\/(.*)\.js$/, '$1'), panel }
}
