import { element } from '../element.js'
import { bytes, percent } from '../format.js'
import { exampleOrders } from './reports/example.js'
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

/**
 * @typedef {{ id: string, state: keyof typeof STATES, progress: number, note: string | null,
 * error?: string | null, result?: any }} Report
 */

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
  const { form, setBusy } = createForm(start)
  const status = element('p', { role: 'status' })
  const progress = element('progress', { max: 1, 'aria-label': 'Progress of the report' })
  const cancel = element(
    'button',
    { type: 'button', className: 'small', onclick: () => stop() },
    'Cancel',
  )
  const work = element('div', { className: 'work', hidden: true }, status, cancel, progress)
  const result = element('div', { className: 'result' })
  section.append(form, work, result)

  /** The report that is waited for. @type {string | undefined} */
  let waiting
  let stop = () => {}

  /** @param {File} file @param {URLSearchParams} query */
  async function start(file, query) {
    leave()
    result.replaceChildren()
    const controller = new AbortController()
    stop = () => controller.abort()
    const onProgress = (/** @type {number} */ fraction) =>
      setStatus(`Uploading ${file.name}, ${bytes(file.size)}`, { fraction })
    onProgress(0)
    try {
      follow(await upload(`/v1/reports?${query}`, file, { signal: controller.signal, onProgress }))
    } catch (error) {
      setStatus(controller.signal.aborted ? 'Cancelled' : explain(/** @type {any} */ (error)), {
        isError: !controller.signal.aborted,
      })
    }
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
  function show({ id, state, progress, note, error, result: summary }) {
    // It may have been finished, or another one begun, since this was asked for.
    if (id !== waiting) return
    const isGoing = state === 'queued' || state === 'running'
    // One that is queued again says why its last attempt failed.
    const reason = state === 'queued' ? error : note
    if (isGoing)
      return setStatus([STATES[state], reason].filter(Boolean).join(': '), { fraction: progress })
    leave()
    setStatus(state === 'failed' && error ? error : STATES[state], { isError: state === 'failed' })
    if (summary) result.replaceChildren(...showResult(summary))
  }

  /** @param {string} text @param {{ fraction?: number, isError?: boolean }} [options] */
  function setStatus(text, { fraction, isError = false } = {}) {
    const isGoing = fraction !== undefined
    work.hidden = false
    status.textContent = isGoing ? `${text}, ${percent(Math.floor(fraction * 100) / 100)}` : text
    status.classList.toggle('error', isError)
    progress.value = fraction ?? 0
    progress.hidden = !isGoing
    cancel.hidden = !isGoing
    setBusy(isGoing)
  }

  const showError = (/** @type {Error} */ error) => setStatus(error.message, { isError: true })

  /** Reads the report. If the service is unavailable for a moment, the next read will do. */
  const read = () =>
    waiting && api('GET', `/v1/reports/${waiting}`, { background: true }).then(show, () => {})

  live.on('report.progress', show)
  live.on('report.finished', ({ id }) => id === waiting && read())
  live.onReconnect(read)
  setInterval(() => document.hidden || read(), READ_EVERY_MS)
}

/** @param {(file: File, query: URLSearchParams) => void} start */
function createForm(start) {
  const file = element('input', {
    type: 'file',
    className: 'visually-hidden',
    accept: '.csv,.tsv,.txt,text/csv',
    required: true,
  })
  const chosen = element('span', {}, 'Drop a CSV here, or choose one')
  const drop = element('label', { className: 'drop' }, file, chosen)
  const groupBy = element('input', { name: 'groupBy', placeholder: 'region', autocomplete: 'off' })
  const value = element('input', { name: 'value', placeholder: 'total', autocomplete: 'off' })
  const submit = element('button', { className: 'primary' }, 'Summarise')
  const example = element('button', { type: 'button', onclick: takeExample }, 'Take an example')
  const form = element(
    'form',
    { className: 'report-form', onsubmit: send },
    drop,
    element('label', {}, 'Group by ', groupBy),
    element('label', {}, 'Sum up ', value),
    element('div', { className: 'row' }, submit, example),
  )

  file.onchange = () => choose(file.files)
  drop.ondragover = (event) => {
    event.preventDefault()
    drop.dataset.over = ''
  }
  drop.ondragleave = () => delete drop.dataset.over
  drop.ondrop = (event) => {
    event.preventDefault()
    delete drop.dataset.over
    choose(event.dataTransfer?.files ?? null)
  }

  /** @param {FileList | null} files */
  function choose(files) {
    const [first] = files ?? []
    if (!first) return
    file.files = files
    chosen.textContent = `${first.name}, ${bytes(first.size)}`
  }

  function takeExample() {
    const transfer = new DataTransfer()
    transfer.items.add(exampleOrders())
    choose(transfer.files)
    groupBy.value = 'region'
    value.value = 'total'
  }

  /** @param {SubmitEvent} event */
  function send(event) {
    event.preventDefault()
    const [first] = file.files ?? []
    const columns = [groupBy, value]
      .filter((field) => field.value !== '')
      .map((field) => [field.name, field.value])
    if (first) start(first, new URLSearchParams(columns))
  }

  const setBusy = (/** @type {boolean} */ isBusy) => {
    submit.disabled = isBusy
  }
  return { form, setBusy }
}

/** @param {Error & { errors?: { message: string }[] }} error */
const explain = ({ message, errors }) =>
  errors ? errors.map(({ message }) => message).join('. ') : message
