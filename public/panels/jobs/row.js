import { element } from '../../element.js'
import { percent } from '../../format.js'
import { moment, nameOf, showDetail } from './detail.js'
import { throttled } from './throttled.js'

export const TONES = {
  scheduled: 'warn',
  queued: '',
  running: 'info',
  parked: 'warn',
  succeeded: 'good',
  failed: 'bad',
  cancelled: '',
}
const COLUMNS = 5

/** @typedef {import('../jobs.js').Job} Job */

/**
 * A job as a row that opens.
 *
 * @param {Job} first
 * @param {{
 *   act: (method: string, path: string) => void,
 *   api: typeof import('../../api.js').api,
 *   isHandled: (kind: string) => boolean,
 * }} options
 */
export function rowFor(first, { act, api, isHandled }) {
  let job = first
  const name = nameOf(job)
  const opener = element('button', {
    type: 'button',
    className: 'opener',
    'aria-expanded': 'false',
  })
  opener.append(job.kind, ' ', element('span', { className: 'hint' }, job.id.slice(-6)))
  const error = element('div', { className: 'error' })
  const state = element('span', { className: 'badge' })
  const progress = element('progress', { max: 1, 'aria-label': `Progress of ${name}` })
  const note = element('div', { className: 'hint' })
  const attempts = element('td', { className: 'number' })
  const unhandled = element('span', { className: 'hint' }, 'No handler here')
  unhandled.title = 'The process that answers has no handler for this kind: others may have.'
  const [cancel, retry] = ['Cancel', 'Retry'].map((text) => {
    const options = { type: 'button', className: 'small', 'aria-label': `${text} ${name}` }
    return element('button', options, text)
  })
  cancel.onclick = () => act('DELETE', `/v1/jobs/${job.id}`)
  retry.onclick = () => act('POST', `/v1/jobs/${job.id}/retry`)
  const detail = element('td', { colSpan: COLUMNS })
  const detailRow = element('tr', { className: 'detail', hidden: true }, detail)
  const row = element(
    'tr',
    {},
    element('th', { scope: 'row' }, opener, error),
    element('td', { className: 'progress' }, state, progress, note),
    attempts,
    element('td', {}, moment(job.createdAt)),
    element('td', { className: 'actions' }, unhandled, cancel, retry),
  )
  const body = element('tbody', { 'data-job': job.id }, row, detailRow)

  /** What the details show. */
  let shownAs = ''
  const summary = () => [job.state, job.attempt, job.error].join()
  const readDetail = throttled(async () => {
    if (detailRow.hidden) return
    try {
      const read = await api('GET', `/v1/jobs/${job.id}`, { background: true })
      update(read)
      shownAs = summary()
      showDetail(detail, read)
    } catch (failure) {
      if (!shownAs) detail.textContent = /** @type {Error} */ (failure).message
    }
  })
  opener.onclick = () => {
    detailRow.hidden = !detailRow.hidden
    opener.setAttribute('aria-expanded', String(!detailRow.hidden))
    shownAs = ''
    if (detailRow.hidden) return detail.replaceChildren()
    detail.textContent = 'Reading'
    readDetail.now()
  }

  /** @param {Partial<Job>} changes */
  function update(changes) {
    job = { ...job, ...changes }
    const isFinished = ['succeeded', 'failed', 'cancelled'].includes(job.state)
    state.textContent = job.state
    state.dataset.tone = TONES[job.state]
    progress.value = job.progress
    progress.hidden = job.state !== 'running'
    note.textContent = toNote(job)
    attempts.textContent = `${job.attempt} of ${job.maxAttempts}`
    error.textContent = job.state === 'succeeded' ? '' : (job.error ?? '')
    const isUnhandled = !isHandled(job.kind) && job.state !== 'succeeded'
    unhandled.hidden = !isUnhandled
    const hadFocus = [cancel, retry].includes(/** @type {any} */ (document.activeElement))
    cancel.hidden = isFinished
    retry.hidden = isUnhandled || (job.state !== 'failed' && job.state !== 'cancelled')
    if (hadFocus && /** @type {HTMLElement} */ (document.activeElement).hidden) opener.focus()
    if (!detailRow.hidden && shownAs && shownAs !== summary()) readDetail()
  }

  return {
    body,
    update,
    state: () => job.state,
    /** Whether it stays though it is not in the list any more. */
    isInUse: () => !detailRow.hidden || body.contains(document.activeElement),
  }
}

/** @param {Job} job */
function toNote({ state, progress, note }) {
  if (state === 'parked') return 'No process has handled this kind for a day.'
  return state === 'running' ? [percent(progress), note].filter(Boolean).join(', ') : ''
}
