import { element } from '../element.js'
import { duration, number } from '../format.js'
import { percentile, recordLatencies } from '../light-requests.js'
import { onSamples, serviceNow } from '../samples.js'

/** @typedef {import('../../src/ops/live-samples.ts').OpsSample} Sample */

/** One lucky run decides nothing. */
const RUNS = 3
/** About half a second for one thread. */
const COUNT_UP_TO = 4_000_000
/** A browser opens six connections to a server. The light request must not wait for one. */
const COUNTS_AT_A_TIME = 3
/** A sample comes once a second, and later while the event loop is blocked. */
const SAMPLE_TIMEOUT_MS = 5_000

const MODES = {
  offload: { name: 'On worker threads', where: 'on worker threads' },
  inline: { name: 'On the event loop', where: 'on the event loop' },
}
/** What all others feel of it, by the slowest light request. */
const FEELINGS = [
  { upToMs: 100, tone: 'good', words: 'nobody noticed' },
  { upToMs: 300, tone: 'warn', words: 'somebody may have noticed' },
  { upToMs: Number.POSITIVE_INFINITY, tone: 'bad', words: 'everybody waited' },
]

/**
 * @typedef {object} Run
 * @property {number} startedAt by the service's clock
 * @property {number} tookMs
 * @property {number | undefined} slowestMs of the light requests meanwhile
 * @property {number} [blockedMs] of the event loop, in all; absent for visitors who may not see it
 */

/**
 * The same work on threads and on the event loop at the press of a button, and what all others feel
 * of it.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'Try it', order: 11, access: 'public', width: 'half', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, context) {
  const addBlocks = blockReader(context)
  const stop = element(
    'button',
    { type: 'button', className: 'small', hidden: true, onclick: () => running?.abort() },
    'Stop the run',
  )
  const status = element(
    'p',
    { className: 'hint', role: 'status' },
    `Each button counts primes ${COUNTS_AT_A_TIME} times at once, in ${RUNS} runs.`,
  )
  const showStatus = context.status(status)
  const columns = Object.fromEntries(
    Object.entries(MODES).map(([mode, { name, where }]) => [
      mode,
      createColumn({ mode, name, where, refusal: context.whyNot('operate') }, () =>
        measure(/** @type {keyof typeof MODES} */ (mode)),
      ),
    ]),
  )
  section.append(
    element('div', { className: 'toolbar' }, section.firstElementChild ?? '', stop),
    element('div', { className: 'modes' }, ...Object.values(columns).map(({ section }) => section)),
    status,
  )
  /** @type {AbortController | undefined} */
  let running

  /** @param {keyof typeof MODES} mode */
  async function measure(mode) {
    if (running) return
    running = new AbortController()
    const { signal } = running
    setBusy(true)
    /** @type {Run[]} */
    const runs = []
    try {
      while (runs.length < RUNS) {
        showStatus(`Counting primes ${MODES[mode].where}: run ${runs.length + 1} of ${RUNS}`)
        runs.push(await runOnce(mode, signal))
      }
      await addBlocks(runs, signal)
      signal.throwIfAborted()
      columns[mode].show(runs)
      showStatus(`Counted primes ${MODES[mode].where}, in ${RUNS} runs`)
    } catch (error) {
      showStatus(signal.aborted ? `Stopped in run ${runs.length + 1} of ${RUNS}` : explain(error))
    } finally {
      // Aborts the other counts once one has failed.
      running.abort()
      running = undefined
      if (document.activeElement === stop) columns[mode].button.focus()
      setBusy(false)
    }
  }

  /** @param {keyof typeof MODES} mode @param {AbortSignal} signal @returns {Promise<Run>} */
  async function runOnce(mode, signal) {
    const count = () => context.api('GET', `/v1/primes?to=${COUNT_UP_TO}&mode=${mode}`, { signal })
    const startedAt = serviceNow()
    const startedHere = performance.now()
    let tookMs = 0
    const latencies = await recordLatencies(context, async () => {
      await Promise.all(Array.from({ length: COUNTS_AT_A_TIME }, count))
      tookMs = performance.now() - startedHere
    })
    return { startedAt, tookMs, slowestMs: percentile(latencies, 1) }
  }

  /** @param {boolean} isBusy */
  function setBusy(isBusy) {
    // Not disabled: the focus would leave the button that was pressed.
    for (const { button } of Object.values(columns))
      button.setAttribute('aria-disabled', `${isBusy}`)
    stop.hidden = !isBusy
  }
}

/**
 * What one mode showed; before, what it will show.
 *
 * @param {{ mode: string, name: string, where: string, refusal: string | undefined }} options
 * @param {() => void} start
 */
function createColumn({ mode, name, where, refusal }, start) {
  const title = element('h3', { id: `try-${mode}` }, name)
  const button = element(
    'button',
    { type: 'button', 'data-mode': mode, 'aria-label': `Count primes ${where}`, onclick: start },
    'Count primes',
  )
  const slowest = element('p', { className: 'display' }, '–')
  const meaning = element('p', {}, `the slowest light request while primes are counted ${where}`)
  const body = element('tbody')
  const head = ['', 'Median', 'Worst'].map((text) =>
    text === '' ? element('td') : element('th', { scope: 'col', className: 'number' }, text),
  )
  const table = element(
    'table',
    { 'aria-label': `${RUNS} runs ${where}` },
    element('thead', {}, element('tr', {}, ...head)),
    body,
  )
  const section = element(
    'section',
    { className: 'mode', 'aria-labelledby': title.id },
    title,
    button,
    element('div', {}, slowest, meaning),
    table,
  )

  /** @param {Run[]} runs */
  function show(runs) {
    const [took, latency, blocked] = [
      runs.map(({ tookMs }) => tookMs),
      runs.map(({ slowestMs }) => slowestMs),
      runs.map(({ blockedMs }) => blockedMs),
    ].map(summarise)
    const feeling = FEELINGS.find(({ upToMs }) => latency.median <= upToMs)
    if (feeling) {
      slowest.textContent = milliseconds(latency.median)
      slowest.className = `display ${feeling.tone}`
      meaning.textContent = `the slowest light request meanwhile: ${feeling.words}`
    }
    body.replaceChildren(
      row('Took', ...[took.median, took.worst].map(duration)),
      row('Slowest light request', ...[latency.median, latency.worst].map(milliseconds)),
      refusal
        ? row('Event loop blocked', refusal)
        : row('Event loop blocked', ...[blocked.median, blocked.worst].map(milliseconds)),
    )
  }
  show([])
  return { section, button, show }
}

/** The last cell reaches to the end. @param {string} name @param {...string} values */
const row = (name, ...values) =>
  element(
    'tr',
    {},
    element('th', { scope: 'row' }, name),
    ...values.map((value) =>
      element('td', { className: 'number', colSpan: 3 - values.length }, value),
    ),
  )

/** @param {(number | undefined)[]} values */
function summarise(values) {
  const known = values.filter((value) => value !== undefined)
  return { median: percentile(known, 0.5), worst: percentile(known, 1) }
}

/** One unit for all, so that 8 ms and 1,100 ms compare at a glance. @param {number} [value] */
const milliseconds = (value) => (value === undefined ? '–' : `${number(Math.round(value))} ms`)

/** @param {any} error */
const explain = (error) =>
  error.status === 403
    ? 'This service runs no heavy work on its event loop. To see what that would cost, start it with DEMO_INLINE=true.'
    : error

/**
 * The function adds for how long the event loop was blocked in each run, as samples say.
 *
 * @param {import('../live.js').PanelContext} context
 * @returns {(runs: Run[], signal: AbortSignal) => Promise<void>}
 */
function blockReader(context) {
  if (context.whyNot('operate')) return async () => {}
  /** @type {Sample[]} */
  let samples = []
  let check = () => {}
  onSamples(context, (past) => {
    samples = past
    check()
  })

  /** Resolves once the time is sampled; after a while, also without. */
  const untilSampled = (/** @type {number} */ time, /** @type {AbortSignal} */ signal) =>
    new Promise((resolve) => {
      const ended = AbortSignal.any([signal, AbortSignal.timeout(SAMPLE_TIMEOUT_MS)])
      check = () => {
        const isSampled = (samples.at(-1)?.at ?? 0) >= time
        if (isSampled || ended.aborted) resolve(isSampled)
      }
      ended.addEventListener('abort', check)
      check()
    })

  return async (runs, signal) => {
    const last = runs[runs.length - 1]
    if (!(await untilSampled(last.startedAt + last.tookMs, signal))) return
    const blocks = samples.flatMap(({ blocks }) => blocks)
    for (const run of runs)
      run.blockedMs = blocks
        .filter(({ at }) => at >= run.startedAt && at <= run.startedAt + run.tookMs)
        .reduce((sum, { blockedMs }) => sum + blockedMs, 0)
  }
}
