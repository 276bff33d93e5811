import type { Compilable, CompiledQuery, QueryResult } from 'kysely'
import type { Db } from './database.ts'

type Parameters = readonly (string | number | Date)[]
type Build<Params extends Parameters, Row> = (db: Db, ...params: Params) => Compilable<Row>

/** The server plans longer lists badly. */
const MAX_LIST_LENGTH = 4_096

/**
 * Compiles a hot query once, because building it costs as much as running it.
 *
 *     const byId = prepared('order.by-id', (db, id: number) =>
 *       db.selectFrom('order').selectAll().where('id', '=', id))
 *     const [order] = await byId(db, 7)
 *
 * @param name for metrics and traces.
 * @param build gets stand-ins, which it may only pass on to the query.
 * @throws Error on the first call, unless the query binds each parameter once, in order.
 */
export function prepared<Params extends Parameters, Row>(name: string, build: Build<Params, Row>) {
  const run = preparedWrite(name, build)
  return async (db: Db, ...params: Params): Promise<Row[]> => (await run(db, ...params)).rows
}

/** Like `prepared`, with `insertId` and `numAffectedRows` in the result. */
export function preparedWrite<Params extends Parameters, Row>(
  name: string,
  build: Build<Params, Row>,
) {
  let compiled: (CompiledQuery<Row> & { name: string }) | undefined
  return (db: Db, ...parameters: Params): Promise<QueryResult<Row>> => {
    const executor = db.getExecutor()
    // Each handle may have other plugins.
    if (executor.plugins.length > 0)
      return executor.executeQuery(build(db, ...parameters).compile())
    compiled ??= { ...compile(db, build, parameters.length), name }
    const query = { ...compiled, parameters }
    // `executor.executeQuery()` would add four promises for plugins.
    return executor.provideConnection((connection) => connection.executeQuery<Row>(query))
  }
}

function compile<Params extends Parameters, Row>(db: Db, build: Build<Params, Row>, count: number) {
  const standIns = Array.from({ length: count }, () => ({ [Symbol.toPrimitive]: refuseValue }))
  const query = build(db, ...(standIns as readonly unknown[] as Params)).compile()
  const bound = query.parameters
  if (bound.length !== count || bound.some((value, index) => value !== standIns[index]))
    throw new Error(`A prepared query must bind each parameter once, in order: ${query.sql}`)
  return query
}

function refuseValue(): never {
  throw new Error(
    'A prepared query must bind its parameters as they are: ' +
      'their values are not known when it is built',
  )
}

/**
 * Runs a query with a list whose length depends on data.
 *
 *     const jobs = await inPieces(ids, (piece) =>
 *       db.selectFrom('job').select('id').where('id', 'in', piece).execute())
 *
 * Pads each piece to a power of two by its last value, to bound the statements. Not for
 * `values (…)` or `not in`.
 */
export async function inPieces<Value, Row>(
  values: readonly Value[],
  run: (piece: readonly Value[]) => Promise<readonly Row[]>,
): Promise<Row[]> {
  const rows: Row[] = []
  const distinct = [...new Set(values)]
  for (let start = 0; start < distinct.length; start += MAX_LIST_LENGTH)
    for (const row of await run(padded(distinct.slice(start, start + MAX_LIST_LENGTH))))
      rows.push(row)
  return rows
}

function padded<Value>(values: readonly Value[]): Value[] {
  const length = 2 ** Math.ceil(Math.log2(values.length))
  return [...values, ...new Array<Value>(length - values.length).fill(values.at(-1) as Value)]
}
