import { element, scrollRegion } from '../../element.js'
import { moment } from './detail.js'
import { TONES } from './row.js'

/** @typedef {import('../../../src/features/jobs-admin/routes.ts').JobSchedule} Schedule */

/** Folded, and read only while it is open. @param {typeof import('../../api.js').api} api */
export function schedules(api) {
  const names = ['Schedule', 'Kind', 'Cron', 'Time zone', 'Last run', 'Next run']
  const heads = names.map((text) => element('th', { scope: 'col' }, text))
  const actions = element('span', { className: 'visually-hidden' }, 'Actions')
  const head = element('tr', {}, ...heads, element('td', {}, actions))
  const table = element('table', {}, element('thead', {}, head))
  const status = element('p', { role: 'status' })
  const part = element('details', {}, element('summary', {}, 'Schedules'))
  part.append(scrollRegion('Schedules', table), status)
  const body = element('tbody')
  table.append(body)
  /** @type {Map<string, ReturnType<typeof rowFor>>} */
  const rows = new Map()

  async function read() {
    if (!part.open) return
    /** @type {{ items: Schedule[] } | undefined} */
    const found = await api('GET', '/v1/jobs/schedules', { background: true }).catch(() => {})
    if (!found) return
    for (const schedule of found.items) {
      const row = rows.get(schedule.name) ?? rowFor(schedule.name, act)
      rows.set(schedule.name, row)
      row.update(schedule)
      if (!row.part.isConnected) body.append(row.part)
    }
  }

  /** @param {string} name @param {'run' | 'pause' | 'resume'} verb */
  async function act(name, verb) {
    status.className = 'hint'
    try {
      await api('POST', `/v1/jobs/schedules/${encodeURIComponent(name)}/${verb}`)
      const done = { run: 'is queued', pause: 'is paused', resume: 'is resumed' }
      status.textContent = `${name} ${done[verb]}.`
    } catch (error) {
      status.className = 'error'
      status.textContent = /** @type {Error} */ (error).message
    }
    await read()
  }

  part.ontoggle = read
  return { part, read }
}

/**
 * The buttons stay while the rest changes, so that they keep the focus.
 *
 * @param {string} name
 * @param {(name: string, verb: 'run' | 'pause' | 'resume') => void} act
 */
function rowFor(name, act) {
  const cells = Array.from({ length: 5 }, () => element('td'))
  const [run, pause] = ['Run now', 'Pause'].map((text) =>
    element('button', { type: 'button', className: 'small' }, text),
  )
  let isPaused = false
  run.ariaLabel = `Run now ${name}`
  run.onclick = () => act(name, 'run')
  pause.onclick = () => act(name, isPaused ? 'resume' : 'pause')
  const heading = element('th', { scope: 'row' }, name)
  const part = element('tr', {}, heading, ...cells)
  part.append(element('td', { className: 'actions' }, run, pause))

  /** @param {Schedule} schedule */
  function update(schedule) {
    isPaused = schedule.isPaused
    pause.textContent = isPaused ? 'Resume' : 'Pause'
    pause.ariaLabel = `${pause.textContent} ${name}`
    for (const [index, content] of toContents(schedule).entries())
      cells[index]?.replaceChildren(...content)
  }
  return { part, update }
}

/** @param {Schedule} schedule @returns {(string | Node)[][]} */
function toContents({ kind, cron, timeZone, isPaused, lastRun, nextRun }) {
  return [
    [kind],
    [element('code', {}, cron)],
    [timeZone],
    lastRun ? [`${moment(lastRun.slot)} `, ...badge(lastRun.state)] : ['None yet'],
    isPaused || !nextRun ? badge('paused') : [moment(nextRun)],
  ]
}

/** @param {keyof typeof TONES | 'paused' | null} state */
function badge(state) {
  if (!state) return []
  const part = element('span', { className: 'badge' }, state)
  part.dataset.tone = state === 'paused' ? 'warn' : TONES[state]
  return [part]
}
