import { element } from '../element.js'
import { percent, timeOfDay } from '../format.js'

const SHOWN = 12
/** Other processes do not notify of their jobs, and messages may be lost. */
const READ_EVERY_MS = 3_000
/** However fast jobs come and go. */
const MIN_READ_PAUSE_MS = 1_000
const TONES = {
  scheduled: 'warn',
  queued: '',
  running: 'info',
  succeeded: 'good',
  failed: 'bad',
  cancelled: '',
}

/**
 * @typedef {object} Job
 * @property {string} id
 * @property {string} kind
 * @property {keyof typeof TONES} state
 * @property {number} progress
 * @property {string | null} note
 * @property {string | null} error
 * @property {number} attempt
 * @property {number} maxAttempts
 * @property {string} createdAt
 */

/** @type {import('../live.js').Panel} */
export const panel = { title: 'Jobs', order: 60, access: 'operate', width: 'full', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, { api, live }) {
  const body = element('tbody')
  const heads = ['Job', 'State', 'Progress', 'Attempts', 'Created', ''].map((text) =>
    text
      ? element('th', { scope: 'col' }, text)
      : element('td', {}, element('span', { className: 'visually-hidden' }, 'Actions')),
  )
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...heads)), body)
  const empty = element('p', { className: 'empty' }, 'No jobs yet.')
  const failure = element('p', { className: 'error', role: 'status' })
  section.append(
    element(
      'div',
      { className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Jobs' },
      table,
    ),
    empty,
    failure,
  )

  /** @type {Map<string, ReturnType<typeof rowFor>>} */
  const rows = new Map()
  const read = reader(async () =>
    show((await api('GET', `/v1/jobs?limit=${SHOWN}`, { background: true })).items),
  )

  /** Rows stay where they are while they change, and so does the focus. @param {Job[]} jobs */
  function show(jobs) {
    const ids = new Set(jobs.map(({ id }) => id))
    for (const [id, { row }] of rows) {
      if (ids.has(id)) continue
      row.remove()
      rows.delete(id)
    }
    for (const [place, job] of jobs.entries()) {
      const shown = rows.get(job.id) ?? rowFor(job, act)
      rows.set(job.id, shown)
      if (body.children[place] !== shown.row)
        body.insertBefore(shown.row, body.children[place] ?? null)
      shown.update(job)
    }
    empty.hidden = jobs.length > 0
  }

  /** @param {string} method @param {string} path */
  async function act(method, path) {
    failure.textContent = ''
    try {
      const job = await api(method, path)
      rows.get(job.id)?.update(job)
    } catch (error) {
      failure.textContent = /** @type {Error} */ (error).message
      read()
    }
  }

  live.subscribe('jobs')
  live.on('job.changed', (/** @type {{ jobs: Job[], more: boolean }} */ { jobs, more }) => {
    for (const job of jobs) rows.get(job.id)?.update(job)
    // A new job's times are only in the list.
    if (more || jobs.some(({ id }) => !rows.has(id))) read()
  })
  live.onReconnect(read)
  setInterval(() => document.hidden || read(), READ_EVERY_MS)
}

/**
 * Reads at once, but never twice within the pause: then once more at its end.
 *
 * @param {() => Promise<void>} readOnce
 */
function reader(readOnce) {
  let isResting = false
  let isWanted = false
  return async function read() {
    if (isResting) {
      isWanted = true
      return
    }
    isResting = true
    isWanted = false
    // After an outage everything is read again.
    await readOnce().catch(() => {})
    setTimeout(() => {
      isResting = false
      if (isWanted) read()
    }, MIN_READ_PAUSE_MS)
  }
}

/**
 * @param {Job} first
 * @param {(method: string, path: string) => void} act
 */
function rowFor(first, act) {
  let job = first
  const error = element('div', { className: 'error' })
  const state = element('span', { className: 'badge' })
  const progress = element('progress', { max: 1, 'aria-label': `Progress of ${job.kind}` })
  const note = element('div', { className: 'hint' })
  const attempts = element('td', { className: 'number' })
  const cancel = element('button', { type: 'button', className: 'small' }, 'Cancel')
  cancel.onclick = () => act('DELETE', `/v1/jobs/${job.id}`)
  const retry = element('button', { type: 'button', className: 'small' }, 'Retry')
  retry.onclick = () => act('POST', `/v1/jobs/${job.id}/retry`)
  const row = element(
    'tr',
    { 'data-job': job.id },
    element('th', { scope: 'row' }, element('span', { title: job.id }, job.kind), error),
    element('td', {}, state),
    element('td', { className: 'progress' }, progress, note),
    attempts,
    element('td', {}, timeOfDay(job.createdAt)),
    element('td', { className: 'actions' }, cancel, retry),
  )

  /** @param {Partial<Job>} changes */
  function update(changes) {
    job = { ...job, ...changes }
    const isFinished = ['succeeded', 'failed', 'cancelled'].includes(job.state)
    state.textContent = job.state
    state.dataset.tone = TONES[job.state]
    progress.value = job.progress
    progress.hidden = job.state !== 'running'
    note.textContent =
      job.state === 'running' ? [percent(job.progress), job.note].filter(Boolean).join(', ') : ''
    attempts.textContent = `${job.attempt} of ${job.maxAttempts}`
    error.textContent = job.state === 'succeeded' ? '' : (job.error ?? '')
    cancel.hidden = isFinished
    retry.hidden = job.state !== 'failed' && job.state !== 'cancelled'
  }
  return { row, update }
}
