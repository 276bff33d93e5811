import { timeChart } from '../chart.js'
import { element } from '../element.js'
import { duration, number } from '../format.js'

/** Half a second for one thread, about. */
const COUNT_UP_TO = 4_000_000
const DEFAULT_AT_A_TIME = 3
/**
 * A browser opens six connections to one server: some must be left for the probe, or it would
 * measure its own queue.
 */
const MAX_AT_A_TIME = 4

const PROBE_EVERY_MS = 200
const WINDOW_MS = 120_000
const PROBED = '/v1/products/1'
/** Where there is no such product: something else that costs nothing. */
const PROBED_INSTEAD = '/health/live'

const MODES = {
  offload: { button: 'On worker threads', where: 'on worker threads' },
  inline: { button: 'On the event loop', where: 'on the event loop' },
}

/**
 * Heavy work at the press of a button, and what a user feels of it meanwhile. @type
 * {import('../live.js').Mount}
 */
export function mount(section, context) {
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
  const news = element(
    'p',
    { className: 'hint', role: 'status' },
    'Watch the latency below, and the event loop.',
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
    const say = () => tell(`Counting primes ${where}: ${done} of ${times} done`)
    const count = async () => {
      const answer = await api('GET', `/v1/primes?to=${COUNT_UP_TO}&mode=${mode}`, { signal })
      done++
      say()
      return answer
    }
    say()
    try {
      const [{ count: primes }] = await Promise.all(Array.from({ length: times }, count))
      const took = duration(performance.now() - startedAt)
      tell(
        `Counted ${number(primes)} primes ${times === 1 ? 'once' : `${times} times`} ${where}, in ${took}`,
      )
    } catch (error) {
      tell(
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

  /** Those that still run are of no use to anybody once one has failed. */
  function end() {
    running?.abort()
    running = undefined
    for (const button of buttons) button.disabled = false
    stop.disabled = true
  }

  /** @param {string} text @param {boolean} [isError] */
  function tell(text, isError = false) {
    news.textContent = text
    news.classList.toggle('error', isError)
  }

  const label = element('label', { htmlFor: atATime.id }, 'at a time')
  return [
    element('h3', {}, 'Count primes'),
    element('div', { className: 'row' }, ...buttons, stop, atATime, label),
    news,
  ]
}

/** @param {Error & { status?: number }} error */
const explain = ({ status, message }) =>
  status === 403
    ? 'This service does no heavy work on its event loop, as it should be. To see what it would cost, start it with DEMO_INLINE=true.'
    : message

/**
 * Asks for something light, over and over, for as long as somebody looks and the service is there.
 *
 * @param {HTMLElement} section
 * @param {import('../live.js').PanelContext} context
 */
function probe(section, { api, live }) {
  let path = PROBED
  const title = element('h3', {}, `Latency of ${path}, as this page feels it`)
  const container = element('div')
  section.append(title, container)
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
  let isAsking = false

  live.onState((state) => {
    isLive = state === 'live'
    if (!isLive) keep(null)
  })

  /**
   * @param {number | null} latency nothing where none could be measured: the line is broken there
   */
  function keep(latency) {
    const now = Date.now()
    const first = times.findIndex((time) => time > now - WINDOW_MS)
    times = [...times.slice(first), now]
    latencies = [...latencies.slice(first), latency]
    show([times, latencies])
  }

  async function ask() {
    // One at a time: what waits behind a slow one would say the same once more.
    if (!isLive || isAsking) return
    isAsking = true
    const startedAt = performance.now()
    try {
      await api('GET', path, { background: true })
      keep(performance.now() - startedAt)
    } catch (error) {
      const { status } = /** @type {import('../api.js').ApiError} */ (error)
      if (status === 404) path = PROBED_INSTEAD
      title.textContent = `Latency of ${path}, as this page feels it`
      // To be refused after a while is no better than to wait.
      keep(status === 0 ? null : performance.now() - startedAt)
    } finally {
      isAsking = false
    }
  }
  setInterval(ask, PROBE_EVERY_MS)
}
