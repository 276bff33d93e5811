import type { Compilable, CompiledQuery } from 'kysely'
import type { Db } from './database.ts'

/**
 * A query that Kysely builds and compiles only once; afterwards each call just binds its parameters. For the few hot
 * reads: there, building the query costs about as much as running it (`npm run bench`).
 *
 *     const byId = prepared((db, id: number) => db.selectFrom('product').selectAll().where('id', '=', id))
 *     const [product] = await byId(db, 7)
 *
 * @throws Error on the first call, unless the query binds each of its parameters once and in their order.
 */
export function prepared<Params extends readonly (string | number | Date)[], Row>(
  build: (db: Db, ...params: Params) => Compilable<Row>,
): (db: Db, ...params: Params) => Promise<Row[]> {
  let compiled: CompiledQuery<Row> | undefined
  return async (db, ...params) => {
    compiled ??= compile(build(db, ...params), params)
    const query = { ...compiled, parameters: params }
    // Not `db.executeQuery()`: that leads here by four promises more, for plugins and signals that we do not have.
    const { rows } = await db.getExecutor().provideConnection((connection) => connection.executeQuery<Row>(query))
    return rows
  }
}

function compile<Row>(query: Compilable<Row>, params: readonly unknown[]): CompiledQuery<Row> {
  const compiled = query.compile()
  const bound = compiled.parameters
  if (bound.length !== params.length || bound.some((value, index) => value !== params[index]))
    throw new Error(`A prepared query must bind each parameter once, in order: ${compiled.sql}`)
  return compiled
}
