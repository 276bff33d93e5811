import { timeChart } from '../chart.js'
import { element } from '../element.js'
import { duration, number } from '../format.js'

/** About half a second for one thread. */
const COUNT_UP_TO = 4_000_000
const DEFAULT_AT_A_TIME = 3
/** A browser opens six connections to a server. The probe must not queue for one. */
const MAX_AT_A_TIME = 4

const PROBE_EVERY_MS = 200
const WINDOW_MS = 120_000
/** Of the page itself, which every visitor may read. */
const PROBED_PATH = '/'

const MODES = {
  offload: { button: 'On worker threads', where: 'on worker threads' },
  inline: { button: 'On the event loop', where: 'on the event loop' },
}

/**
 * Heavy work at the press of a button, and the latency of other requests meanwhile.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'Try it', order: 20, access: 'public', width: 'narrow', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, context) {
  section.append(...tryOut(context))
  probe(section, context)
}

/** @param {import('../live.js').PanelContext} context */
function tryOut({ api }) {
  const atATime = element('input', {
    type: 'number',
    id: 'try-at-a-time',
    min: '1',
    max: `${MAX_AT_A_TIME}`,
    value: `${DEFAULT_AT_A_TIME}`,
    required: true,
  })
  const status = element(
    'p',
    { className: 'hint', role: 'status' },
    'Watch the latency below and the event loop.',
  )
  const buttons = Object.entries(MODES).map(([mode, { button }]) =>
    element(
      'button',
      {
        type: 'button',
        'data-mode': mode,
        onclick: () => run(/** @type {keyof typeof MODES} */ (mode)),
      },
      button,
    ),
  )
  const stop = element(
    'button',
    { type: 'button', disabled: true, onclick: () => running?.abort(new Error('Stopped')) },
    'Stop',
  )
  /** @type {AbortController | undefined} */
  let running

  /** @param {keyof typeof MODES} mode */
  async function run(mode) {
    if (!atATime.reportValidity()) return
    const { where } = MODES[mode]
    const times = atATime.valueAsNumber
    const { signal } = begin()
    const startedAt = performance.now()
    let done = 0
    const showProgress = () => showStatus(`Counting primes ${where}: ${done} of ${times} done`)
    const count = async () => {
      const answer = await api('GET', `/v1/primes?to=${COUNT_UP_TO}&mode=${mode}`, { signal })
      done++
      showProgress()
      return answer
    }
    showProgress()
    try {
      const [{ count: primes }] = await Promise.all(Array.from({ length: times }, count))
      const took = duration(performance.now() - startedAt)
      showStatus(
        `Counted ${number(primes)} primes ${times === 1 ? 'once' : `${times} times`} ${where}, in ${took}`,
      )
    } catch (error) {
      showStatus(
        signal.aborted
          ? `Stopped after ${done} of ${times}`
          : explain(/** @type {Error} */ (error)),
        !signal.aborted,
      )
    } finally {
      end()
    }
  }

  function begin() {
    running = new AbortController()
    for (const button of buttons) button.disabled = true
    stop.disabled = false
    return running
  }

  /** Aborts the others once one has failed. */
  function end() {
    running?.abort()
    running = undefined
    for (const button of buttons) button.disabled = false
    stop.disabled = true
  }

  /** @param {string} text @param {boolean} [isError] */
  function showStatus(text, isError = false) {
    status.textContent = text
    status.classList.toggle('error', isError)
  }

  const label = element('label', { htmlFor: atATime.id }, 'at a time')
  return [
    element('h3', {}, 'Count primes'),
    element('div', { className: 'row' }, ...buttons, stop, atATime, label),
    status,
  ]
}

/** @param {Error & { status?: number }} error */
const explain = ({ status, message }) =>
  status === 403
    ? 'This service runs no heavy work on its event loop. To see what that would cost, start it with DEMO_INLINE=true.'
    : message

/**
 * Measures a light request over and over while the page is visible and connected.
 *
 * @param {HTMLElement} section
 * @param {import('../live.js').PanelContext} context
 */
function probe(section, { api, live }) {
  const container = element('div')
  section.append(element('h3', {}, `Latency of HEAD ${PROBED_PATH} from this page`), container)
  const show = timeChart(container, {
    label: 'Latency of a light request over the last two minutes',
    lines: [{ label: 'Latency', colour: '--chart-1', area: true }],
    format: duration,
    windowMs: WINDOW_MS,
    atLeast: 20,
    height: 160,
  })
  /** @type {number[]} */
  let times = []
  /** @type {(number | null)[]} */
  let latencies = []
  let isLive = false
  let isMeasuring = false

  live.onState((state) => {
    isLive = state === 'live'
    if (!isLive) keep(null)
  })

  /** @param {number | null} latency null leaves a gap in the line */
  function keep(latency) {
    const now = Date.now()
    const first = times.findIndex((time) => time > now - WINDOW_MS)
    times = [...times.slice(first), now]
    latencies = [...latencies.slice(first), latency]
    show([times, latencies])
  }

  async function measure() {
    // One at a time: a second one would wait behind the first.
    if (!isLive || isMeasuring) return
    isMeasuring = true
    const startedAt = performance.now()
    try {
      const response = await api('HEAD', PROBED_PATH, { background: true })
      // Browsers count an answer as aborted whose empty body nobody reads.
      await response.text()
      keep(performance.now() - startedAt)
    } catch (error) {
      const { status } = /** @type {import('../api.js').ApiError} */ (error)
      // A refusal that took long counts like a response.
      keep(status === 0 ? null : performance.now() - startedAt)
    } finally {
      isMeasuring = false
    }
  }
  setInterval(measure, PROBE_EVERY_MS)
}
