import { api } from './api.js'
import { openLive } from './live.js'
import { mount as mountEventLoop } from './panels/event-loop.js'
import { mount as mountProcess } from './panels/process.js'
import { mount as mountThreads } from './panels/threads.js'

/**
 * The panels by the id of their section: each file in `panels/` is one, and the line here all that mounts it.
 *
 * @type {Record<string, import('./live.js').Mount>}
 */
const PANELS = {
  'event-loop': mountEventLoop,
  threads: mountThreads,
  process: mountProcess,
}

const STATES = { connecting: 'Connecting', live: 'Live', paused: 'Paused', offline: 'Connection lost' }

const live = openLive()
const connection = /** @type {HTMLElement} */ (document.getElementById('connection'))
live.onState((state) => {
  connection.dataset.state = state
  connection.textContent = STATES[state]
})

for (const [id, mount] of Object.entries(PANELS)) mount(/** @type {HTMLElement} */ (document.getElementById(id)), { live, api })
