import { oncePerFrame } from '../chart.js'
import { element, scrollRegion } from '../element.js'
import { duration, number } from '../format.js'
import { nameOf } from '../processes.js'
import { onRequestChosen } from '../request-link.js'
import { onProcesses } from '../samples.js'
import { nameRoute, requestLog } from './http/log.js'

/** @typedef {import('../../src/ops/live-requests.ts').OpsRequests} OpsRequests */
/** @typedef {Pick<OpsRequests, 'routes' | 'statements'>} Figures */

/**
 * What routes and SQL statements cost lately, and the latest requests with what they did.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'HTTP', order: 40, access: 'operate', width: 'full', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, context) {
  const { api, live } = context
  const routes = figuresTable(
    'Routes in the last minute',
    /** @type {Column<OpsRequests['routes'][0]>[]} */ ([
      ['Route', ({ route }) => nameRoute(route)],
      ['Requests/s', ({ perSecond }) => number(perSecond)],
      ['p50', ({ p50 }) => duration(p50)],
      ['p99', ({ p99 }) => duration(p99)],
      ['Errors', ({ errors }) => number(errors), ({ errors }) => errors > 0 && 'error'],
      ['Refused', ({ refused }) => number(refused), ({ refused }) => refused > 0 && 'refused'],
    ]),
  )
  const statements = figuresTable(
    'SQL statements in the last ten minutes',
    /** @type {Column<OpsRequests['statements'][0]>[]} */ ([
      ['Statement', ({ text }) => text],
      ['Runs', ({ count }) => number(count)],
      ['Total', ({ totalMs }) => duration(totalMs)],
      ['p50', ({ p50 }) => duration(p50)],
      ['p99', ({ p99 }) => duration(p99)],
      ['Longest', ({ max }) => duration(max)],
    ]),
  )
  const log = requestLog({ api, read })
  const hint = element('p', { className: 'hint', hidden: true })
  section.append(
    hint,
    element('div', { className: 'tables' }, routes.block, statements.block),
    ...log.blocks,
  )

  /** The newest of each process. @type {Map<string, Figures>} */
  const figures = new Map()
  let chosenId = ''

  const draw = oncePerFrame(() => {
    const shown = chosenId ? figures.get(chosenId) : [...figures.values()].at(-1)
    routes.show(shown?.routes ?? [])
    statements.show(shown?.statements ?? [])
    log.draw()
  })

  /** @param {OpsRequests} batch */
  function show({ process, routes, statements, ...requests }) {
    figures.set(process, { routes, statements })
    log.add(requests)
    draw(undefined)
  }

  async function read() {
    const batch = await api('GET', '/v1/ops/requests', { background: true }).catch(() => undefined)
    if (batch) show(batch)
  }

  onProcesses(context, ({ ids, shown, chosen }) => {
    for (const id of figures.keys()) if (!ids.includes(id) && id !== chosen?.id) figures.delete(id)
    hint.hidden = shown.length < 2
    if (!chosen || chosen.id === chosenId) return
    chosenId = chosen.id
    const name = nameOf(chosen)
    hint.textContent = `Routes and statements are those of ${name}, requests those of all.`
    draw(undefined)
  })
  live.on('ops.requests', show)
  live.onReconnect(read)
  live.subscribe('ops')
  onRequestChosen((requestId) => {
    section.scrollIntoView()
    log.find(requestId)
  })
}

/**
 * A heading, the text of a cell, and its class. The first column names the row.
 *
 * @template Item
 * @typedef {[head: string, text: (item: Item) => string, className?: (item: Item) => string | false]} Column
 */

/**
 * Rows stay the same elements while their figures change, so that text can be selected.
 *
 * @template Item
 * @param {string} label
 * @param {Column<Item>[]} columns
 */
function figuresTable(label, columns) {
  const [[, toName]] = columns
  const heads = columns.map(([head], place) =>
    element('th', { scope: 'col', className: place > 0 ? 'number' : '' }, head),
  )
  const body = element('tbody')
  const empty = element('p', { className: 'empty' }, 'None yet.')
  const block = element(
    'div',
    {},
    element('h3', {}, label),
    scrollRegion(
      label,
      element('table', {}, element('thead', {}, element('tr', {}, ...heads)), body),
      empty,
    ),
  )
  /** @type {Map<string, HTMLTableRowElement>} */
  let rows = new Map()

  /** @param {string} name */
  function addRow(name) {
    const cells = columns.slice(1).map(() => element('td'))
    return element('tr', {}, element('th', { scope: 'row' }, element('code', {}, name)), ...cells)
  }

  /** @param {Item[]} items */
  function show(items) {
    const known = rows
    rows = new Map()
    for (const [place, item] of items.entries()) {
      const name = toName(item)
      const row = known.get(name) ?? addRow(name)
      rows.set(name, row)
      for (const [index, [, toText, toClass]] of columns.entries()) {
        if (index === 0) continue
        row.cells[index].textContent = toText(item)
        row.cells[index].className = `number ${toClass?.(item) || ''}`
      }
      if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null)
    }
    while (body.rows.length > items.length) body.lastChild?.remove()
    empty.hidden = items.length > 0
  }
  return { block, show }
}
