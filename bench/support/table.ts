const GAP = '   '

/** Objects as a table for a terminal: a column for each field but those that are nested. */
export function formatTable(rows: readonly object[]): string {
  const columns = Object.entries(rows[0] ?? {})
    .filter(([, value]) => typeof value !== 'object')
    .map(([key]) => [key, ...rows.map((row) => formatCell(row[key as keyof typeof row]))])
  const widths = columns.map((cells) => Math.max(...cells.map(({ length }) => length)))
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)
  return Array.from({ length: rows.length + 1 }, (_, line) =>
    columns.map((cells, column) => pad(cells[line] ?? '', column)).join(GAP),
  ).join('\n')
}

/** Four significant digits. */
const formatCell = (value: unknown) =>
  typeof value === 'number' ? String(Number(value.toPrecision(4))) : String(value ?? '–')

/** A figure with `digits` digits after the point, or a dash when there is none. */
export const number = (value: number | undefined, digits: number) => value?.toFixed(digits) ?? '–'
