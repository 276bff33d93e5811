/** @typedef {import('../src/ops/live-samples.ts').OpsSample} Sample */
/** @typedef {{ node: string, v8: string, database: string }} Versions */

const MAX_SAMPLES = 120

/** @type {ReturnType<typeof openSamples> | undefined} */
let shared

/**
 * Calls `tell` with the last two minutes, oldest first, whenever there is one more second. All
 * panels read the same.
 *
 * @param {import('./live.js').PanelContext} context
 * @param {(samples: Sample[], versions: Versions | undefined) => void} tell
 */
export function onSamples(context, tell) {
  shared ??= openSamples(context)
  shared.add(tell)
}

/** What the service's clock says now, as far as its samples told: the browser's may be another. */
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
  const tellAll = () => {
    for (const tell of listeners) tell(samples, versions)
  }

  live.on('ops.sample', (/** @type {Sample} */ sample) => {
    aheadMs = sample.at - Date.now()
    samples = [...samples, sample].slice(-MAX_SAMPLES)
    tellAll()
  })
  live.onReconnect(async () => {
    const past = await api('GET', '/v1/ops', { background: true }).catch(() => undefined)
    if (!past) return
    const newest = past.samples.at(-1)?.at ?? 0
    samples = [...past.samples, ...samples.filter(({ at }) => at > newest)].slice(-MAX_SAMPLES)
    versions = past.versions
    tellAll()
  })
  live.subscribe('ops')
  return {
    add: (/** @type {(samples: Sample[], versions: Versions | undefined) => void} */ tell) =>
      listeners.add(tell),
    ahead: () => aheadMs,
  }
}
