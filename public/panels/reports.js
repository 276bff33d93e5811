import { element } from '../element.js'
import { percent } from '../format.js'
import { createForm } from './reports/form.js'
import { showResult } from './reports/result.js'
import { upload } from './reports/upload.js'

/** Events may be lost: this often an unfinished report is read as well. */
const READ_EVERY_MS = 2_000
const STATES = {
  queued: 'Queued',
  running: 'Summarising',
  succeeded: 'Done',
  failed: 'Failed',
  cancelled: 'Cancelled',
}

/** @typedef {import('../../src/features/reports/contract.ts').Report} Report */
/** @typedef {import('../api.js').ApiError} ApiError */

/**
 * A CSV is uploaded, a job summarises it, and its summary is shown.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = {
  title: 'Reports',
  order: 90,
  access: 'reports:write',
  width: 'full',
  example: true,
  mount,
}

/** @type {import('../live.js').Panel['mount']} */
function mount(section, { api, live }) {
  const { form, setBusy } = createForm({ onChoose: clear, onInput: clearStatus, onSend: start })
  const status = element('p', { role: 'status' })
  // Outside of the status, which screen readers would read aloud for each percent.
  const share = element('span', { 'aria-hidden': 'true' })
  const progress = element('progress', { max: 1 })
  const cancel = element(
    'button',
    { type: 'button', className: 'small', onclick: () => stop() },
    'Cancel',
  )
  const work = element('div', { className: 'work', hidden: true }, status, share, cancel, progress)
  const result = element('div', { className: 'result' })
  section.append(form, work, result)

  /** The name of the file that is under way, or was last. */
  let name = ''
  /** The report that is waited for. @type {string | undefined} */
  let waiting
  let stop = () => {}
  let isGoing = false
  /** Whether what is said will be wrong once the connection is back. */
  let isOutage = false

  /** @param {File} file @param {URLSearchParams} query */
  async function start(file, query) {
    clear()
    name = file.name
    cancel.setAttribute('aria-label', `Cancel report of ${name}`)
    progress.setAttribute('aria-label', `Progress of the report of ${name}`)
    const controller = new AbortController()
    stop = () => controller.abort()
    const onProgress = (/** @type {number} */ fraction) =>
      setStatus(`Uploading ${name}`, { fraction })
    onProgress(0)
    try {
      follow(await upload(`/v1/reports?${query}`, file, { signal: controller.signal, onProgress }))
    } catch (error) {
      if (controller.signal.aborted) setStatus(STATES.cancelled)
      else showError(/** @type {ApiError} */ (error))
    }
  }

  /** What was found out about the last file, unless one is under way. */
  function clear() {
    clearStatus()
    if (!isGoing) result.replaceChildren()
  }

  function clearStatus() {
    if (!isGoing) work.hidden = true
  }

  /** @param {Report} report */
  function follow(report) {
    waiting = report.id
    live.subscribe(`report:${report.id}`)
    stop = () => api('DELETE', `/v1/reports/${report.id}`).then(show, showError)
    show(report)
  }

  function leave() {
    if (waiting) live.unsubscribe(`report:${waiting}`)
    waiting = undefined
  }

  /** @param {Report} report */
  function show(report) {
    const { id, state, note, error, result: summary } = report
    // It may have been finished, or another one begun, since this was asked for.
    if (id !== waiting) return
    // One that is queued again says why its last attempt failed.
    const reason = state === 'queued' ? error : note
    if (state === 'queued' || state === 'running')
      return setStatus([`${STATES[state]} ${name}`, reason].filter(Boolean).join(': '), {
        fraction: report.progress,
      })
    leave()
    setStatus(state === 'failed' && error ? error : STATES[state], { isError: state === 'failed' })
    if (summary) result.replaceChildren(...showResult(name, summary, report))
  }

  /**
   * One that concerns a report leaves it to go on: the next read says how it is.
   *
   * @param {ApiError} error
   */
  function showError({ message, status, errors }) {
    if (status === 404) leave()
    setStatus(errors ? errors.map(({ message }) => message).join('. ') : message, {
      fraction: waiting === undefined ? undefined : progress.value,
      isError: true,
    })
    isOutage = status === 0 || status >= 500
  }

  /** @param {string} text @param {{ fraction?: number, isError?: boolean }} [options] */
  function setStatus(text, { fraction, isError = false } = {}) {
    isGoing = fraction !== undefined
    isOutage = false
    work.hidden = false
    if (status.textContent !== text) status.textContent = text
    status.classList.toggle('error', isError)
    share.textContent = fraction === undefined ? '' : percent(Math.floor(fraction * 100) / 100)
    progress.value = fraction ?? 0
    progress.hidden = !isGoing
    cancel.hidden = !isGoing
    setBusy(isGoing ? name : undefined)
  }

  /** Reads the report. If the service is unavailable for a moment, the next read will do. */
  const read = () =>
    waiting &&
    api('GET', `/v1/reports/${waiting}`, { background: true }).then(
      show,
      (error) => error.status === 404 && showError(error),
    )

  live.on('report.progress', show)
  live.on('report.finished', ({ id }) => id === waiting && read())
  live.onReconnect(() => {
    if (isOutage) clearStatus()
    read()
  })
  setInterval(() => document.hidden || read(), READ_EVERY_MS)
}
