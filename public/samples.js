import { nameOf, Processes } from './processes.js'

/** @typedef {import('./processes.js').Process} Process */
/** @typedef {import('./processes.js').Sample} Sample */
/** @typedef {{ name: string, versions: import('./processes.js').Versions | undefined }} Source */
/** @typedef {(samples: Sample[], source: Source) => void} SamplesListener */
/** @typedef {(processes: Processes, heard: Process | undefined) => void} ProcessesListener */

const LIST_EVERY_MS = 5_000
/** While a process is known that is not listed. */
const LIST_AGAIN_MS = 1_000

/** @type {ReturnType<typeof openSamples> | undefined} */
let shared

/**
 * Calls the listener once a second with the last ten minutes of samples, oldest first, of the
 * process that serves the page. All panels share them. Only the newest has workers and kinds of
 * tasks.
 *
 * @param {import('./live.js').PanelContext} context
 * @param {SamplesListener} listener
 */
export const onSamples = (context, listener) => open(context).own.add(listener)

/**
 * The same, of the process that the visitor has chosen; its `name` is empty if there is no other.
 *
 * @param {import('./live.js').PanelContext} context
 * @param {SamplesListener} listener
 */
export const onChosenSamples = (context, listener) => open(context).chosen.add(listener)

/**
 * Calls the listener with all processes, whenever one was heard or they were listed.
 *
 * @param {import('./live.js').PanelContext} context
 * @param {ProcessesListener} listener
 */
export const onProcesses = (context, listener) => open(context).all.add(listener)

/** Whose charts are shown. @param {string} id */
export const chooseProcess = (id) => shared?.choose(id)

/** The service's clock, by its last sample: the browser's clock may differ. */
export const serviceNow = () => Date.now() + (shared?.ahead() ?? 0)

/** @param {import('./live.js').PanelContext} context */
function open(context) {
  shared ??= openSamples(context)
  return shared
}

/** @param {import('./live.js').PanelContext} context */
function openSamples({ live, api }) {
  const processes = new Processes()
  let aheadMs = 0
  let listedAt = 0
  const listeners = {
    /** @type {Set<SamplesListener>} */
    own: new Set(),
    /** @type {Set<SamplesListener>} */
    chosen: new Set(),
    /** @type {Set<ProcessesListener>} */
    all: new Set(),
  }

  /** @param {Process} [heard] all if undefined */
  function notify(heard) {
    for (const listener of listeners.all) listener(processes, heard)
    for (const which of /** @type {const} */ (['own', 'chosen'])) {
      const process = processes[which]
      if (!process || (heard && heard !== process)) continue
      const { samples, versions } = process
      const name = processes.shown.length > 1 ? nameOf(process) : ''
      for (const listener of listeners[which]) listener(samples, { name, versions })
    }
  }

  async function list() {
    listedAt = Date.now()
    const listed = await api('GET', '/v1/ops/processes', { background: true }).catch(() => {})
    if (listed) processes.list(listed)
    notify()
  }

  live.on(
    'ops.sample',
    (/** @type {Sample & { process: string }} */ { process: id, ...sample }) => {
      const heard = processes.hear(id, sample)
      if (!heard) return
      if (heard === processes.own) aheadMs = sample.at - Date.now()
      notify(heard)
      const pauseMs = processes.isOutdated ? LIST_AGAIN_MS : LIST_EVERY_MS
      if (Date.now() - listedAt >= pauseMs) void list()
    },
  )
  live.onReconnect(async () => {
    const listing = list()
    const past = await api('GET', '/v1/ops', { background: true }).catch(() => {})
    if (past) processes.load(past)
    await listing
    notify()
  })
  live.onState((state) => {
    if (state !== 'live') processes.disconnect()
  })
  live.subscribe('ops')
  return {
    ...listeners,
    ahead: () => aheadMs,
    choose(/** @type {string} */ id) {
      processes.choose(id)
      notify()
    },
  }
}
