/**
 * Light requests are what a busy event loop makes slow. The page measures one over and over, one at
 * a time: a second one would wait behind the first.
 */

/** Of the page itself, which every visitor may read. */
export const LIGHT_PATH = '/'
export const WINDOW_MS = 120_000
/** Of one page. Many may be open, and each request costs the service. */
const EVERY_MS = 3_000
/** While their latency is recorded. */
const OFTEN_MS = 50

/** @type {ReturnType<typeof open> | undefined} */
let shared

/**
 * Calls the listener with the latencies of the last two minutes, oldest first, on each new one. It
 * is measured while the page is visible and connected. All panels share them.
 *
 * @param {import('./live.js').PanelContext} context
 * @param {(times: number[], latencies: (number | null)[]) => void} listener null is a gap
 */
export function onLightRequests(context, listener) {
  shared ??= open(context)
  shared.add(listener)
}

/**
 * The latencies of all light requests that were under way while `work` was.
 *
 * @param {import('./live.js').PanelContext} context
 * @param {() => Promise<unknown>} work
 * @returns {Promise<number[]>}
 */
export function recordLatencies(context, work) {
  shared ??= open(context)
  return shared.record(work)
}

/**
 * By the nearest rank; undefined without values.
 *
 * @param {number[]} values
 * @param {number} share from 0 to 1
 */
export const percentile = (values, share) =>
  values.toSorted((one, other) => one - other)[Math.ceil(values.length * share) - 1]

/**
 * Of the request that began then, by the browser's network: without the time that a busy page takes
 * to hear of the response.
 *
 * @param {number} startedAt
 */
function latencySince(startedAt) {
  const entries = /** @type {PerformanceResourceTiming[]} */ (
    performance.getEntriesByName(new URL(LIGHT_PATH, location.href).href, 'resource')
  )
  // Browsers keep some hundred entries, and then no more.
  performance.clearResourceTimings()
  const timing = entries.findLast(({ startTime }) => startTime >= startedAt)
  return timing ? timing.responseEnd - timing.requestStart : performance.now() - startedAt
}

/** @param {import('./live.js').PanelContext} context */
function open({ api, live }) {
  /** @type {number[]} */
  let times = []
  /** @type {(number | null)[]} */
  let latencies = []
  /** @type {Set<(times: number[], latencies: (number | null)[]) => void>} */
  const listeners = new Set()
  /** @type {Set<number[]>} */
  const records = new Set()
  let isLive = false
  let isGoing = false
  let measuring = Promise.resolve()
  let wake = () => {}

  live.onState((state) => {
    isLive = state === 'live'
    if (!isLive) keep(null)
    void go()
  })

  async function go() {
    if (isGoing) return
    isGoing = true
    while (isLive || records.size > 0) {
      measuring = measure()
      await measuring
      await pause()
    }
    isGoing = false
  }

  async function measure() {
    const startedAt = performance.now()
    try {
      const response = await api('HEAD', LIGHT_PATH, { background: true })
      // Browsers count an answer as aborted whose empty body nobody reads.
      await response.text()
      keep(latencySince(startedAt))
    } catch (error) {
      const { status } = /** @type {import('./api.js').ApiError} */ (error)
      // A refusal that took long counts like a response.
      keep(status === 0 ? null : latencySince(startedAt))
    }
  }

  /** @param {number | null} latency null leaves a gap in the line */
  function keep(latency) {
    const now = Date.now()
    const first = times.findIndex((time) => time > now - WINDOW_MS)
    times = [...times.slice(first), now]
    latencies = [...latencies.slice(first), latency]
    if (latency !== null) for (const record of records) record.push(latency)
    for (const listener of listeners) listener(times, latencies)
  }

  const pause = () =>
    new Promise((resolve) => {
      wake = () => resolve(undefined)
      setTimeout(wake, records.size > 0 ? OFTEN_MS : EVERY_MS)
    })

  return {
    /** @param {(times: number[], latencies: (number | null)[]) => void} listener */
    add(listener) {
      listeners.add(listener)
    },

    /** @param {() => Promise<unknown>} work */
    async record(work) {
      /** @type {number[]} */
      const record = []
      records.add(record)
      wake()
      void go()
      try {
        await work()
        await measuring
        return record
      } finally {
        records.delete(record)
      }
    },
  }
}
