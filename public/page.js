import { api } from './api.js'
import { openLive } from './live.js'
import { mount as jobs } from './panels/jobs.js'
import { mount as mandelbrot } from './panels/mandelbrot.js'
import { mount as products } from './panels/products.js'
import { mount as reports } from './panels/reports.js'
import { mount as tryIt } from './panels/try.js'

/**
 * The panels by the id of their section: each file in `panels/` is one, and the line here all that mounts it.
 *
 * @type {Record<string, import('./live.js').Mount>}
 */
const PANELS = {
  try: tryIt,
  mandelbrot,
  reports,
  jobs,
  products,
}

const STATES = { connecting: 'Connecting', live: 'Live', paused: 'Paused', offline: 'Connection lost' }

const live = openLive()
const connection = /** @type {HTMLElement} */ (document.getElementById('connection'))
live.onState((state) => {
  connection.dataset.state = state
  connection.textContent = STATES[state]
})

for (const [id, mount] of Object.entries(PANELS)) mount(/** @type {HTMLElement} */ (document.getElementById(id)), { live, api })
