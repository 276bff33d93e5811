import { element, scrollRegion } from '../../element.js'
import { duration, exactNumber, number, percent } from '../../format.js'
import { toBars } from './bars.js'

const MAX_GROUPS = 8

/** @typedef {import('../../../src/features/reports/contract.ts').Report} Report */
/** @typedef {import('../../../src/features/reports/contract.ts').Summary} Summary */
/** @typedef {import('../../../src/features/reports/contract.ts').ColumnSummary} Column */

/**
 * A summary as a table of its columns, and its groups as bars.
 *
 * @param {string} name of the file
 * @param {Summary} summary
 * @param {Pick<Report, 'startedAt' | 'finishedAt'>} report
 * @returns {HTMLElement[]}
 */
export function showResult(name, summary, { startedAt, finishedAt }) {
  const { rows, columns, rejected, groups } = summary
  const ms = startedAt && finishedAt ? Date.parse(finishedAt) - Date.parse(startedAt) : null
  const size = `${plural(rows, 'row')}, ${plural(columns.length, 'column')}`
  return [
    element('h3', { className: 'title' }, `${name}: ${size}, summarised in ${duration(ms)}`),
    ...showRejected(rejected),
    ...(groups ? showGroups(groups) : []),
    ...showColumns(summary),
  ]
}

/** @param {Summary['rejected']} rejected */
function showRejected({ rows, reasons, first }) {
  if (rows === 0) return []
  const lines = first.map(({ line, column, reason, text }) => [
    `${line}`,
    // An empty line lacks every column.
    column !== null && text !== '' ? `${reason}: “${column}” is missing` : reason,
    element('code', {}, text),
  ])
  const table = showTable('Rows that could not be read', ['Line', 'Reason', 'Text'], lines)
  table.classList.add('rejected')
  return [
    element('h3', { className: 'error' }, `${plural(rows, 'row')} could not be read`),
    table,
    ...(rows > first.length ? [showOthers(rows - first.length, reasons)] : []),
  ]
}

/** @param {number} others @param {Summary['rejected']['reasons']} reasons */
function showOthers(others, reasons) {
  const counts = Object.entries(reasons).map(([reason, rows]) => `${reason}: ${number(rows)}`)
  return element(
    'p',
    { className: 'hint' },
    `and ${number(others)} more. By reason: ${counts.join(', ')}`,
  )
}

/** @param {NonNullable<Summary['groups']>} groups */
function showGroups({ groupBy, value, total, first }) {
  const shown = first.slice(0, MAX_GROUPS)
  const bars = toBars(
    shown.map(({ count, sum }) => (value === null ? count : Number(sum ?? Number.NaN))),
  )
  const items = shown.map((group, index) => {
    const figure = value === null ? number(group.count) : text('number', group.sum)
    return element(
      'li',
      {},
      element('span', {}, group.key ?? '(empty)'),
      drawBar(bars[index]),
      element('b', {}, figure),
    )
  })
  const what = value === null ? 'Rows' : `Sum of ${value}`
  const which =
    total > shown.length
      ? `the ${shown.length} with the most rows, of ${number(total)}`
      : `${number(total)} of them`
  return [
    element('h3', {}, `${what} by ${groupBy}, ${which}`),
    element('ul', { className: 'bars' }, ...items),
  ]
}

/** @param {ReturnType<typeof toBars>[0]} place */
function drawBar({ from, length, zero }) {
  const bar = element('span', { className: 'bar' })
  bar.style.setProperty('--from', `${from}`)
  bar.style.setProperty('--length', `${length}`)
  bar.style.setProperty('--zero', `${zero}`)
  return bar
}

/** @param {Summary} summary */
function showColumns({ columns, rows, approximate }) {
  const heads = ['Column', 'Missing', 'Distinct', 'From', 'To', 'Mean', 'Distribution']
  const lines = columns.map((column) => {
    const { name, type, nulls, distinct, min, max, mean } = column
    return [
      element(
        'span',
        {},
        element('span', { className: 'name' }, name),
        element('span', { className: 'badge' }, type),
      ),
      percent(rows === 0 ? 0 : nulls / rows),
      `${approximate ? '≈ ' : ''}${number(distinct)}`,
      showEdge(type, min),
      showEdge(type, max),
      text(type, mean ?? null),
      showDistribution(column),
    ]
  })
  const estimated = '≈ An estimate, as in every file of more than a million rows'
  return [
    showTable('Columns of the report', heads, lines),
    ...(approximate ? [element('p', { className: 'hint' }, estimated)] : []),
  ]
}

/** @param {Column['type']} type @param {Column['min']} value */
function showEdge(type, value) {
  const shown = text(type, value)
  return type === 'text' ? element('span', { className: 'words' }, shown) : shown
}

/**
 * Columns between the first and the last are aligned as figures.
 *
 * @param {string} name
 * @param {string[]} heads
 * @param {(string | HTMLElement)[][]} lines
 */
function showTable(name, heads, lines) {
  const isNumber = (/** @type {number} */ place) => place > 0 && place < heads.length - 1
  const head = heads.map((text, place) =>
    element('th', { scope: 'col', className: isNumber(place) ? 'number' : '' }, text),
  )
  const body = lines.map(([first, ...others]) =>
    element(
      'tr',
      {},
      element('th', { scope: 'row' }, first),
      ...others.map((cell, index) =>
        element('td', { className: isNumber(index + 1) ? 'number' : '' }, cell),
      ),
    ),
  )
  const table = element(
    'table',
    {},
    element('thead', {}, element('tr', {}, ...head)),
    element('tbody', {}, ...body),
  )
  return scrollRegion(name, table)
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
    bar.style.setProperty('--share', `${most > 0 ? count / most : 0}`)
    return bar
  })
  const peak = bars.find(({ count }) => count === most)
  const label = peak ? `Most frequent: ${peak.label}, ${plural(peak.count, 'time')}` : 'No values'
  return element('span', { className: 'spark', role: 'img', 'aria-label': label }, ...drawn)
}

/** @param {number} amount @param {string} unit */
const plural = (amount, unit) => `${number(amount)} ${unit}${amount === 1 ? '' : 's'}`

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
