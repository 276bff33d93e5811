import { element, scrollRegion } from '../../element.js'
import { number } from '../../format.js'

/** @typedef {import('../../../src/features/jobs-admin/routes.ts').JobQueues} JobQueues */
/** @typedef {JobQueues['items'][number]} Queue */

/**
 * Folded, with what is wrong beside the heading.
 *
 * @param {typeof import('../../api.js').api} api
 */
export function queues(api) {
  const heads = ['Queue', 'Waiting', 'Running', 'State'].map((text) =>
    element('th', { scope: 'col' }, text),
  )
  for (const head of heads.slice(1, 3)) head.classList.add('number')
  const actions = element('span', { className: 'visually-hidden' }, 'Actions')
  const head = element('thead', {}, element('tr', {}, ...heads, element('td', {}, actions)))
  const body = element('tbody')
  const troubles = element('span', { className: 'hint' })
  const failure = element('p', { className: 'error', role: 'status' })
  const table = scrollRegion('Queues', element('table', {}, head, body))
  const part = element('details', {}, element('summary', {}, 'Queues ', troubles), table, failure)
  /** @type {Map<string, ReturnType<typeof rowFor>>} */
  const rows = new Map()

  async function read() {
    /** @type {JobQueues | undefined} */
    const found = await api('GET', '/v1/jobs/queues', { background: true }).catch(() => {})
    if (found) show(found.items)
  }

  /** @param {Queue[]} items */
  function show(items) {
    for (const queue of items) {
      const row = rows.get(queue.queue) ?? rowFor(queue.queue, act)
      rows.set(queue.queue, row)
      row.update(queue)
    }
    const names = new Set(items.map(({ queue }) => queue))
    for (const [name, { part }] of rows) {
      if (names.has(name)) continue
      part.remove()
      rows.delete(name)
    }
    for (const [place, { queue }] of items.entries()) {
      const row = rows.get(queue)?.part
      const there = body.rows[place] ?? null
      if (row && there !== row) body.insertBefore(row, there)
    }
    const bad = items.filter((queue) => troubleOf(queue) !== undefined)
    troubles.textContent = bad.map((queue) => `${queue.queue}: ${troubleOf(queue)}`).join(', ')
  }

  /** @param {string} queue @param {'pause' | 'resume'} verb */
  async function act(queue, verb) {
    failure.textContent = ''
    try {
      await api('POST', `/v1/jobs/queues/${queue}/${verb}`)
    } catch (error) {
      failure.textContent = /** @type {Error} */ (error).message
    }
    await read()
  }

  read()
  return { part, read }
}

/** @param {Queue} queue @returns {string | undefined} */
function troubleOf({ pausedAt, isRun, queued }) {
  if (pausedAt) return 'paused'
  return !isRun && queued > 0 ? 'no process runs it' : undefined
}

/**
 * A row that stays while it changes, so that its button keeps the focus.
 *
 * @param {string} name @param {(queue: string, verb: 'pause' | 'resume') => void} act
 */
function rowFor(name, act) {
  const waiting = element('td', { className: 'number' })
  const running = element('td', { className: 'number' })
  const state = element('span', { className: 'badge' })
  const button = element('button', { type: 'button', className: 'small' })
  const part = element(
    'tr',
    {},
    element('th', { scope: 'row' }, name),
    waiting,
    running,
    element('td', {}, state),
    element('td', { className: 'actions' }, button),
  )
  return {
    part,
    /** @param {Queue} queue */
    update(queue) {
      const verb = queue.pausedAt ? 'Resume' : 'Pause'
      const trouble = troubleOf(queue)
      waiting.textContent = number(queue.queued)
      running.textContent = number(queue.running)
      state.textContent = trouble ?? (queue.isRun ? 'runs' : 'no process runs it')
      state.dataset['tone'] = trouble ? 'warn' : queue.isRun ? 'good' : ''
      button.textContent = verb
      button.setAttribute('aria-label', `${verb} ${name}`)
      button.onclick = () => act(name, queue.pausedAt ? 'resume' : 'pause')
    },
  }
}
