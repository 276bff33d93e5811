import { api } from './api.js'
import { openLive } from './live.js'
import { mount as mountEventLoop } from './panels/event-loop.js'
import { mount as mountJobs } from './panels/jobs.js'
import { mount as mountMandelbrot } from './panels/mandelbrot.js'
import { mount as mountProcess } from './panels/process.js'
import { mount as mountProducts } from './panels/products.js'
import { mount as mountReports } from './panels/reports.js'
import { mount as mountThreads } from './panels/threads.js'
import { mount as mountTry } from './panels/try.js'

/**
 * The panels by the id of their section: each file in `panels/` is one, and the line here all that
 * mounts it.
 *
 * @type {Record<string, import('./live.js').Mount>}
 */
const PANELS = {
  'event-loop': mountEventLoop,
  try: mountTry,
  threads: mountThreads,
  mandelbrot: mountMandelbrot,
  reports: mountReports,
  jobs: mountJobs,
  products: mountProducts,
  process: mountProcess,
}

const STATES = {
  connecting: 'Connecting',
  live: 'Live',
  paused: 'Paused',
  offline: 'Connection lost',
}

const live = openLive()
const connection = /** @type {HTMLElement} */ (document.getElementById('connection'))
live.onState((state) => {
  connection.dataset.state = state
  connection.textContent = STATES[state]
})

for (const [id, mount] of Object.entries(PANELS))
  mount(/** @type {HTMLElement} */ (document.getElementById(id)), { live, api })
