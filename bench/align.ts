const GAP = '   '

/** A table for a terminal: the first column to the left, figures to the right. */
export function align(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  )
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)
  return rows.map((row) => row.map(pad).join(GAP)).join('\n')
}

/** A figure with that many digits after the point, or a dash when there is none. */
export const number = (value: number | undefined, digits: number) => value?.toFixed(digits) ?? '–'
