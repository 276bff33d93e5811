import { element } from '../../element.js'
import { exactNumber, number, percent } from '../../format.js'

const MAX_GROUPS = 8

/** @typedef {import('../../../src/features/reports/contract.ts').Summary} Summary */
/** @typedef {import('../../../src/features/reports/contract.ts').ColumnSummary} Column */

/**
 * A summary as a table of its columns, and its groups as bars. @param {Summary} summary @returns
 * {HTMLElement[]}
 */
export function showResult({ rows, columns, rejected, groups }) {
  const title = element('h3', {}, `${number(rows)} rows, ${number(columns.length)} columns`)
  return [
    title,
    ...showRejected(rejected),
    ...(groups ? showGroups(groups) : []),
    showTable(columns, rows),
  ]
}

/** @param {Summary['rejected']} rejected */
function showRejected({ rows, first: [first] }) {
  if (!first) return []
  const { line, reason } = first
  return [
    element(
      'p',
      { className: 'error' },
      `${number(rows)} rows could not be read. The first is line ${line}: ${reason}`,
    ),
  ]
}

/** @param {NonNullable<Summary['groups']>} groups */
function showGroups({ groupBy, value, total, first }) {
  const shown = first.slice(0, MAX_GROUPS)
  /** @param {typeof shown[0]} group */
  const toFigure = ({ count, sum }) => (value === null ? count : Number(sum ?? 0))
  const most = Math.max(...shown.map(toFigure), 0)
  const bars = shown.map((group) => {
    const bar = element('span', { className: 'bar' })
    bar.style.setProperty('--share', `${share(toFigure(group), most)}`)
    const figure = value === null ? number(group.count) : text('number', group.sum ?? 0)
    return element(
      'li',
      {},
      element('span', {}, group.key ?? '(empty)'),
      bar,
      element('b', {}, figure),
    )
  })
  const what = value === null ? 'Rows' : `Sum of ${value}`
  const which =
    total > shown.length
      ? `the largest ${shown.length} of ${number(total)}`
      : `${number(total)} of them`
  return [
    element('h3', {}, `${what} by ${groupBy}, ${which}`),
    element('ul', { className: 'bars' }, ...bars),
  ]
}

/** @param {Column[]} columns @param {number} rows */
function showTable(columns, rows) {
  const heads = ['Column', 'Missing', 'Distinct', 'From', 'To', 'Mean', 'Distribution']
  const isNumber = (/** @type {number} */ place) => place > 0 && place < heads.length - 1
  const head = heads.map((text, place) =>
    element('th', { scope: 'col', className: isNumber(place) ? 'number' : '' }, text),
  )
  const body = columns.map((column) => {
    const { name, type, nulls, distinct, min, max, mean } = column
    const figures = [
      percent(rows === 0 ? 0 : nulls / rows),
      number(distinct),
      text(type, min),
      text(type, max),
      text(type, mean ?? null),
    ]
    return element(
      'tr',
      {},
      element(
        'th',
        { scope: 'row' },
        element('span', { className: 'name' }, name),
        element('span', { className: 'badge' }, type),
      ),
      ...figures.map((figure) => element('td', { className: 'number' }, figure)),
      element('td', {}, showDistribution(column)),
    )
  })
  const table = element(
    'table',
    {},
    element('thead', {}, element('tr', {}, ...head)),
    element('tbody', {}, ...body),
  )
  // A region that scrolls must be reachable by keyboard, and have a name.
  return element(
    'div',
    { className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Columns of the report' },
    table,
  )
}

/** @param {Column} column */
function showDistribution({ type, histogram, top }) {
  const bars = histogram
    ? histogram.map(({ from, to, count }) => ({
        label: `${text(type, from)} to ${text(type, to)}`,
        count,
      }))
    : (top ?? []).map(({ value, count }) => ({ label: value, count }))
  const most = Math.max(...bars.map(({ count }) => count), 0)
  const drawn = bars.map(({ label, count }) => {
    const bar = element('i', { title: `${label}: ${number(count)}` })
    bar.style.setProperty('--share', `${share(count, most)}`)
    return bar
  })
  const peak = bars.find(({ count }) => count === most)
  const label = peak ? `Most frequent: ${peak.label}, ${number(peak.count)} times` : 'No values'
  return element('span', { className: 'spark', role: 'img', 'aria-label': label }, ...drawn)
}

/** @param {number} value @param {number} most */
const share = (value, most) => (most > 0 ? Math.max(value, 0) / most : 0)

/**
 * A value as its column's type is read. @param {Column['type']} type @param {Column['min']} value
 */
function text(type, value) {
  if (value === null) return '–'
  if (typeof value === 'number') return number(value)
  if (type === 'integer' || type === 'number') return exactNumber(value)
  // The mean of dates may lie within a day.
  if (type === 'date') return value.slice(0, 'YYYY-MM-DD'.length)
  if (type === 'timestamp') return value.replace('T', ' ').replace(/\.0+(?=\D|$)/, '')
  return value
}
