/**
 * The most values in one list. The server allows 65 535 parameters in a statement, but plans long
 * lists badly.
 */
const MAX_LENGTH = 4_096

/**
 * Runs a query that has a list in it, such as `where id in (…)`, and gives the rows of all its
 * pieces.
 *
 *     const rows = await inPieces(ids, (piece) => db.selectFrom('job').select('id').where('id', 'in', piece).execute())
 *
 * Use it for every list whose length depends on data. The server keeps each prepared statement for
 * each connection, and statements differ by the length of their lists: so a piece is filled up to a
 * power of two with its last value. Do not use it for `values (…)` or `not in`, where a repeated
 * value or a piece changes the meaning.
 */
export async function inPieces<Value, Row>(
  values: readonly Value[],
  run: (piece: readonly Value[]) => Promise<readonly Row[]>,
): Promise<Row[]> {
  const rows: Row[] = []
  const distinct = [...new Set(values)]
  for (let start = 0; start < distinct.length; start += MAX_LENGTH) {
    for (const row of await run(padded(distinct.slice(start, start + MAX_LENGTH)))) rows.push(row)
  }
  return rows
}

/** Filled up to a power of two by repeating its last value; `values` must not be empty. */
function padded<Value>(values: readonly Value[]): Value[] {
  const length = 2 ** Math.ceil(Math.log2(values.length))
  return [...values, ...new Array<Value>(length - values.length).fill(values.at(-1) as Value)]
}
