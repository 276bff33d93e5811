import { element, scrollRegion } from '../element.js'
import { bulkAction } from './jobs/bulk.js'
import { jobFilter, toQuery } from './jobs/filter.js'
import { queues } from './jobs/queues.js'
import { rowFor } from './jobs/row.js'
import { schedules } from './jobs/schedules.js'
import { throttled } from './jobs/throttled.js'

const SHOWN = 12
/** Messages may be lost. */
const READ_EVERY_MS = 15_000
const READ_KINDS_EVERY_MS = 5_000

/** @typedef {import('../../src/features/jobs-admin/routes.ts').Job} Job */
/** @typedef {import('../../src/features/jobs-admin/routes.ts').JobCounts} Counts */

/** @type {import('../live.js').Panel} */
export const panel = { title: 'Jobs', order: 60, access: 'operate', width: 'full', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, { api, live }) {
  const filter = jobFilter(restart)
  const bulk = bulkAction({ api, filter, onDone: () => read() })
  const list = jobList({ api, onEnd: () => read() })
  const older = element('button', { type: 'button', hidden: true }, 'Older')
  const newer = element('button', { type: 'button', hidden: true }, 'Newer')
  const pageNumber = element('span', { className: 'hint', role: 'status' })
  const problem = element('p', { className: 'error', role: 'status' })
  section.append(filter.form, bulk.part, list.part, problem)
  section.append(element('nav', { className: 'row', 'aria-label': 'Pages of jobs' }))
  section.lastElementChild?.append(newer, pageNumber, older)
  const queueTable = queues(api)
  const scheduleTable = schedules(api)
  section.append(queueTable.part, scheduleTable.part)

  /** From the second page to this one. @type {string[]} */
  let cursors = []
  /** @type {string | null} */
  let nextCursor = null
  /** What the rows answer. */
  let shown = ''

  const read = throttled(async () => {
    const asked = identify()
    const query = toQuery({ ...filter.value(), limit: SHOWN, cursor: cursors.at(-1) })
    try {
      const [page, counts] = await Promise.all([
        api('GET', `/v1/jobs?${query}`, { background: true }),
        readCounts(),
      ])
      // Others were chosen meanwhile.
      if (asked !== identify()) return
      problem.textContent = ''
      show(page, counts)
      shown = asked
    } catch (error) {
      // After an outage, what was read still holds unless others were chosen.
      if (shown !== asked) problem.textContent = explain(/** @type {Error} */ (error))
    }
  })
  const readKinds = throttled(async () => {
    const { items } = await api('GET', '/v1/jobs/kinds', { background: true })
    filter.showKinds(items)
    list.showKinds(items)
  }, READ_KINDS_EVERY_MS)

  const identify = () => JSON.stringify([filter.value(), cursors])
  const readCounts = () => {
    const { state: _, ...others } = filter.value()
    return api('GET', `/v1/jobs/counts?${toQuery(others)}`, { background: true })
  }

  /** @param {{ items: Job[], nextCursor: string | null }} page @param {Counts} counts */
  function show(page, counts) {
    nextCursor = page.nextCursor
    filter.showCounts(counts)
    bulk.showCounts(counts)
    list.show(page.items, filter.isAny())
    if (!list.hasKindsOf(page.items)) readKinds()
    for (const [button, isUseful, other] of /** @type {const} */ ([
      [older, nextCursor !== null, newer],
      [newer, cursors.length > 0, older],
    ])) {
      other.hidden = other === newer ? cursors.length === 0 : nextCursor === null
      if (!isUseful && document.activeElement === button) other.focus()
      button.hidden = !isUseful
    }
    pageNumber.textContent = cursors.length > 0 ? `Page ${cursors.length + 1}` : ''
  }

  function restart() {
    cursors = []
    turn()
  }

  function turn() {
    list.close()
    read.now()
  }
  older.onclick = () => {
    if (nextCursor) cursors.push(nextCursor)
    turn()
  }
  newer.onclick = () => {
    cursors.pop()
    turn()
  }

  live.subscribe('jobs')
  live.on('job.changed', (/** @type {{ jobs: Job[], more: boolean }} */ { jobs, more }) => {
    if (list.change(jobs) || more) read()
  })
  live.onReconnect(() => {
    list.clearFailure()
    readKinds()
    read()
  })
  setInterval(() => {
    if (document.hidden) return
    read()
    queueTable.read()
    scheduleTable.read()
  }, READ_EVERY_MS)
}

/** @param {Error & { errors?: { message: string }[] }} error */
const explain = ({ message, errors }) =>
  errors ? `${message}: ${errors.map((each) => each.message).join('. ')}` : message

/**
 * The table. Rows stay where they are while they change, and so does the focus.
 *
 * @param {{ api: typeof import('../api.js').api, onEnd: () => void }} options `onEnd` after what a
 * reader did
 */
function jobList({ api, onEnd }) {
  const names = ['Job', 'State', 'Attempts', 'Created']
  const heads = names.map((text) => element('th', { scope: 'col' }, text))
  heads[2]?.classList.add('number')
  const actions = element('span', { className: 'visually-hidden' }, 'Actions')
  const head = element('tr', {}, ...heads, element('td', {}, actions))
  const table = element('table', {}, element('thead', {}, head))
  const empty = element('p', { className: 'empty', hidden: true })
  const failure = element('p', { className: 'error', role: 'status' })
  const scroll = scrollRegion('List of jobs', table)
  scroll.classList.add('list')
  const part = element('div', {}, scroll, empty, failure)

  /** @type {Map<string, ReturnType<typeof rowFor>>} */
  const rows = new Map()
  /** Whether this process handles each kind. @type {Map<string, boolean>} */
  let kinds = new Map()
  /** Drawn with the next frame. @type {Map<string, Partial<Job>>} */
  const changes = new Map()
  /** Whether the rows answer another question. */
  let isOld = false

  /** @param {string} method @param {string} path */
  async function act(method, path) {
    failure.textContent = ''
    try {
      const job = await api(method, path)
      rows.get(job.id)?.update(job)
    } catch (error) {
      failure.textContent = /** @type {Error} */ (error).message
    }
    onEnd()
  }
  const isHandled = (/** @type {string} */ kind) => kinds.get(kind) ?? true

  function draw() {
    for (const [id, change] of changes) rows.get(id)?.update(change)
    changes.clear()
  }

  /** @param {Job[]} jobs @param {boolean} isAny whether there is no filter */
  function show(jobs, isAny) {
    draw()
    for (const job of jobs) {
      const row = rows.get(job.id) ?? rowFor(job, { act, api, isHandled })
      rows.set(job.id, row)
      row.update(job)
    }
    const ids = new Set(jobs.map(({ id }) => id))
    for (const [id, row] of rows) {
      if (ids.has(id) || (row.isInUse() && !isOld)) continue
      row.body.remove()
      rows.delete(id)
    }
    isOld = false
    const newestFirst = [...rows].sort(([a], [b]) => (a < b ? 1 : -1))
    for (const [place, [, { body }]] of newestFirst.entries()) {
      const there = table.tBodies[place] ?? null
      if (there !== body) table.insertBefore(body, there)
    }
    empty.hidden = rows.size > 0
    empty.textContent = isAny ? 'No jobs yet.' : 'No jobs match.'
  }

  return {
    part,
    show,
    /** Lets go of rows in use, too, when others are shown. */
    close() {
      isOld = true
    },
    /** @param {Job[]} jobs @returns {boolean} whether some are new or in another state */
    change(jobs) {
      if (changes.size === 0) requestAnimationFrame(draw)
      for (const job of jobs) changes.set(job.id, { ...changes.get(job.id), ...job })
      return jobs.some(({ id, state }) => rows.get(id)?.state() !== state)
    },
    /** @param {{ kind: string, isHandled: boolean }[]} items */
    showKinds(items) {
      kinds = new Map(items.map((item) => [item.kind, item.isHandled]))
      for (const row of rows.values()) row.update({})
    },
    /** @param {Job[]} jobs */
    hasKindsOf: (jobs) => jobs.every(({ kind }) => kinds.has(kind)),
    clearFailure() {
      failure.textContent = ''
    },
  }
}
