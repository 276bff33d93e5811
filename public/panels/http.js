import { element, scrollRegion } from '../element.js'
import { duration, number } from '../format.js'
import { onRequestChosen } from '../request-link.js'
import { nameRoute, requestLog } from './http/log.js'

/** @typedef {import('../../src/ops/live-requests.ts').OpsRequests} OpsRequests */

/**
 * What routes and SQL statements cost lately, and the latest requests with what they did.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'HTTP', order: 40, access: 'operate', width: 'full', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, { api, live }) {
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
  section.append(
    element('div', { className: 'tables' }, routes.block, statements.block),
    ...log.blocks,
  )

  /** @type {OpsRequests | undefined} */
  let shown
  let isDrawing = false

  /** Draws once per frame, however many events come. @param {OpsRequests} batch */
  function show(batch) {
    shown = batch
    log.add(batch)
    if (isDrawing) return
    isDrawing = true
    requestAnimationFrame(() => {
      isDrawing = false
      routes.show(shown?.routes ?? [])
      statements.show(shown?.statements ?? [])
      log.draw()
    })
  }

  async function read() {
    const batch = await api('GET', '/v1/ops/requests', { background: true }).catch(() => undefined)
    if (batch) show(batch)
  }

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
