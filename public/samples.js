/** @typedef {import('../src/ops/live-samples.ts').OpsSample} Sample */
/** @typedef {{ node: string, v8: string, database: string }} Versions */

const MAX_SAMPLES = 120

/** @type {ReturnType<typeof openSamples> | undefined} */
let shared

/**
 * Calls the listener once a second with the last two minutes of samples, oldest first. All panels
 * share them.
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
    samples = [...samples, sample].slice(-MAX_SAMPLES)
    notify()
  })
  live.onReconnect(async () => {
    const past = await api('GET', '/v1/ops', { background: true }).catch(() => undefined)
    if (!past) return
    const newest = past.samples.at(-1)?.at ?? 0
    samples = [...past.samples, ...samples.filter(({ at }) => at > newest)].slice(-MAX_SAMPLES)
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
