import { element, scrollRegion } from '../../element.js'
import { moment } from './detail.js'
import { TONES } from './row.js'

/** @typedef {import('../../../src/features/jobs-admin/routes.ts').JobSchedules} Schedules */

/** Folded, and read only while it is open. @param {typeof import('../../api.js').api} api */
export function schedules(api) {
  const heads = ['Schedule', 'Kind', 'Cron, in UTC', 'Last run', 'Next run'].map((text) =>
    element('th', { scope: 'col' }, text),
  )
  const body = element('tbody')
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...heads)), body)
  const part = element('details', {}, element('summary', {}, 'Schedules'))
  part.append(scrollRegion('Schedules', table))

  async function read() {
    if (!part.open) return
    /** @type {Schedules | undefined} */
    const found = await api('GET', '/v1/jobs/schedules', { background: true }).catch(() => {})
    if (found) body.replaceChildren(...found.items.map(toRow))
  }
  part.ontoggle = read
  return { part, read }
}

/** @param {Schedules['items'][number]} schedule */
function toRow({ name, kind, cron, lastRun, nextRun }) {
  const last = element('td', {}, lastRun ? `${moment(lastRun.slot)} ` : 'None yet')
  if (lastRun?.state) {
    const badge = element('span', { className: 'badge' }, lastRun.state)
    badge.dataset.tone = TONES[lastRun.state]
    last.append(badge)
  }
  return element(
    'tr',
    {},
    element('th', { scope: 'row' }, name),
    element('td', {}, kind),
    element('td', {}, element('code', {}, cron)),
    last,
    element('td', {}, moment(nextRun)),
  )
}
