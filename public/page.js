import { api } from './api.js'
import { openLive } from './live.js'
import { mount as mountJobs } from './panels/jobs.js'
import { mount as mountMandelbrot } from './panels/mandelbrot.js'
import { mount as mountProducts } from './panels/products.js'
import { mount as mountReports } from './panels/reports.js'
import { mount as mountTry } from './panels/try.js'

/**
 * The panels by the id of their section: each file in `panels/` is one, and the line here all that mounts it.
 *
 * @type {Record<string, import('./live.js').Mount>}
 */
const PANELS = {
  try: mountTry,
  mandelbrot: mountMandelbrot,
  reports: mountReports,
  jobs: mountJobs,
  products: mountProducts,
}

const STATES = { connecting: 'Connecting', live: 'Live', paused: 'Paused', offline: 'Connection lost' }

const live = openLive()
const connection = /** @type {HTMLElement} */ (document.getElementById('connection'))
live.onState((state) => {
  connection.dataset.state = state
  connection.textContent = STATES[state]
})

for (const [id, mount] of Object.entries(PANELS)) mount(/** @type {HTMLElement} */ (document.getElementById(id)), { live, api })
