import type { Compilable, CompiledQuery, KyselyPlugin, QueryResult } from 'kysely'
import type { Db } from './database.ts'

type Parameter = string | number | Date

/**
 * A query that Kysely builds and compiles only once; afterwards each call just binds its
 * parameters. For the few hot statements: there, building the query costs about as much as running
 * it (`npm run bench:queries`).
 *
 *     const byId = prepared((db, id: number) => db.selectFrom('product').selectAll().where('id', '=', id))
 *     const [product] = await byId(db, 7)
 *
 * `build` gets stand-ins for the parameters, and may only pass each of them on to the query as it
 * is.
 *
 * @throws Error on the first call, unless the query binds each of its parameters once and in their
 * order.
 */
export function prepared<Params extends readonly Parameter[], Row>(
  build: (db: Db, ...params: Params) => Compilable<Row>,
): (db: Db, ...params: Params) => Promise<Row[]> {
  const run = compiledOnce(build)
  return async (db, ...params) => (await run(db, params)).rows
}

/**
 * The same for a statement that writes, whose result has an `insertId` and `numAffectedRows`
 * instead of rows.
 */
export function preparedWrite<Params extends readonly Parameter[]>(
  build: (db: Db, ...params: Params) => Compilable,
): (db: Db, ...params: Params) => Promise<Omit<QueryResult<unknown>, 'rows'>> {
  const run = compiledOnce(build)
  return async (db, ...params) => await run(db, params)
}

function compiledOnce<Params extends readonly Parameter[], Row>(
  build: (db: Db, ...params: Params) => Compilable<Row>,
) {
  let compiled: CompiledQuery<Row> | undefined
  let compiledWith: readonly KyselyPlugin[] = []
  return (db: Db, parameters: Params): Promise<QueryResult<Row>> => {
    const executor = db.getExecutor()
    const { plugins } = executor
    if (!compiled || !isSame(plugins, compiledWith)) {
      compiled = compile(db, build, parameters.length)
      compiledWith = plugins
    }
    const query = { ...compiled, parameters }
    if (plugins.length > 0) return executor.executeQuery<Row>(query)
    // Not `executeQuery()` here: that leads to the connection by four promises more, for the sake
    // of plugins.
    return executor.provideConnection((connection) => connection.executeQuery<Row>(query))
  }
}

const isSame = (some: readonly KyselyPlugin[], others: readonly KyselyPlugin[]) =>
  some.length === others.length && some.every((plugin, index) => plugin === others[index])

function compile<Params extends readonly Parameter[], Row>(
  db: Db,
  build: (db: Db, ...params: Params) => Compilable<Row>,
  count: number,
): CompiledQuery<Row> {
  const standIns = Array.from({ length: count }, (_, index) => standIn(index))
  const query = build(db, ...(standIns as readonly unknown[] as Params)).compile()
  const bound = query.parameters
  if (bound.length !== count || bound.some((value, index) => value !== standIns[index]))
    throw new Error(`A prepared query must bind each parameter once, in order: ${query.sql}`)
  return query
}

/**
 * Stands for a parameter while the query is compiled. Compared by identity, because two parameters
 * may have the same value; an object, so that a query that is made from a parameter's value is
 * refused and not frozen in the form it had first.
 */
const standIn = (index: number) => ({
  [Symbol.toPrimitive]() {
    throw new Error(
      `A prepared query must bind its parameter ${index + 1} as it is: its value is not known when it is built`,
    )
  },
})
