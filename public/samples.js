/** @typedef {import('../src/ops/live-samples.ts').OpsSample} Sample */
/** @typedef {{ node: string, v8: string, database: string }} Versions */

export const KEPT_MS = 600_000

/** @type {ReturnType<typeof openSamples> | undefined} */
let shared

/**
 * Calls the listener once a second with the last ten minutes of samples, oldest first. All panels
 * share them. Only the newest has workers and kinds of tasks.
 *
 * @param {import('./live.js').PanelContext} context
 * @param {(samples: Sample[], versions: Versions | undefined) => void} listener
 */
export function onSamples(context, listener) {
  shared ??= openSamples(context)
  shared.add(listener)
}

/** The service's clock, by its last sample: the browser's clock may differ. */
export const serviceNow = () => Date.now() + (shared?.ahead() ?? 0)

/** @param {import('./live.js').PanelContext} context */
function openSamples({ live, api }) {
  /** @type {Sample[]} */
  let samples = []
  /** @type {Versions | undefined} */
  let versions
  let aheadMs = 0
  /** @type {Set<(samples: Sample[], versions: Versions | undefined) => void>} */
  const listeners = new Set()
  const notify = () => {
    for (const listener of listeners) listener(samples, versions)
  }

  live.on('ops.sample', (/** @type {Sample} */ sample) => {
    aheadMs = sample.at - Date.now()
    samples = mergeSamples(samples, [sample])
    notify()
  })
  live.onReconnect(async () => {
    const past = await api('GET', '/v1/ops', { background: true }).catch(() => undefined)
    if (!past) return
    samples = mergeSamples(samples, past.samples)
    versions = past.versions
    notify()
  })
  live.subscribe('ops')
  return {
    add: (/** @type {(samples: Sample[], versions: Versions | undefined) => void} */ listener) =>
      listeners.add(listener),
    ahead: () => aheadMs,
  }
}

/**
 * Ten minutes of both, each sample once. What the service reads out later replaces what it sent.
 *
 * @param {Sample[]} known
 * @param {Sample[]} read in a row, without a gap
 */
export function mergeSamples(known, read) {
  if (read.length === 0) return known
  const [first, last] = [read[0].at, read[read.length - 1].at]
  const merged = [
    ...known.filter(({ at }) => at < first).map(withoutDetails),
    ...read,
    ...known.filter(({ at }) => at > last),
  ]
  const from = (merged.at(-1)?.at ?? 0) - KEPT_MS
  return merged.filter(({ at }) => at > from)
}

/** @param {Sample} sample @returns {Sample} */
function withoutDetails(sample) {
  if (sample.compute.threads.length === 0) return sample
  const compute = { ...sample.compute, threads: [], processes: [], kinds: [] }
  return { ...sample, compute }
}
