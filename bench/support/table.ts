const GAP = '   '

/** A table for a terminal, the first row its head: the first column to the left, others right. */
export function align(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  )
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)
  return rows.map((row) => row.map(pad).join(GAP)).join('\n')
}

/** A figure with `digits` digits after the point, or a dash when there is none. */
export const number = (value: number | undefined, digits: number) => value?.toFixed(digits) ?? '–'

/** `0.123` as `12 %`. */
export const percent = (share: number) =>
  `${number(100 * share, share > 0 && share < 0.1 ? 1 : 0)} %`
