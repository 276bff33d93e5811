import type { Generated, GeneratedAlways, Transaction } from 'kysely'
import type { Db } from '../../db/database.ts'
import { isDuplicateKey } from '../../db/errors.ts'
import { prepared, preparedWrite } from '../../db/prepared.ts'
import type { Tables } from '../../db/tables.ts'
import { AppError } from '../../errors.ts'
import { timestampOf } from '../../timestamp.ts'
import type { Product, ProductInput, ProductPatch } from './schema.ts'

declare module '../../db/tables.ts' {
  interface Tables {
    product: ProductTable
  }
}

interface ProductTable {
  id: GeneratedAlways<number>
  name: string
  /** DECIMAL(12,2): a string, because a JavaScript number cannot hold every amount. */
  price: string
  stock: number
  version: Generated<number>
  created_at: Generated<Date>
  updated_at: Generated<Date>
}

const COLUMNS = [
  'id',
  'name',
  'price',
  'stock',
  'version',
  'created_at as createdAt',
  'updated_at as updatedAt',
] as const

const productById = prepared((db, id: number) =>
  db.selectFrom('product').select(COLUMNS).where('id', '=', id),
)

const productsAfter = prepared((db, id: number, limit: number) =>
  db.selectFrom('product').select(COLUMNS).where('id', '>', id).orderBy('id').limit(limit),
)

const versionById = prepared((db, id: number) =>
  db.selectFrom('product').select('version').where('id', '=', id).forUpdate(),
)

const insert = preparedWrite(
  (db, name: string, price: string, stock: number, created_at: Date, updated_at: Date) =>
    db.insertInto('product').values({ name, price, stock, created_at, updated_at }),
)

const remove = preparedWrite((db, id: number) => db.deleteFrom('product').where('id', '=', id))

type Row = Awaited<ReturnType<typeof productById>>[number]

export async function findProduct(db: Db, id: number): Promise<Product | undefined> {
  const [row] = await productById(db, id)
  return row && toProduct(row)
}

/** At most `limit` products whose ids follow `id`, in their order. */
export async function listProductsAfter(db: Db, id: number, limit: number): Promise<Product[]> {
  const rows = await productsAfter(db, id, limit)
  return rows.map(toProduct)
}

/** Reads a product's version and locks its row until the transaction ends. */
export async function lockVersion(
  trx: Transaction<Tables>,
  id: number,
): Promise<number | undefined> {
  const [row] = await versionById(trx, id)
  return row?.version
}

/**
 * Inserts a product that is created `now`, and gives its id. Times are bound, not the database's
 * defaults, so that the answer is known without reading it back.
 *
 * @throws AppError `conflict` when the name is taken.
 */
export async function insertProduct(db: Db, input: ProductInput, now: Date): Promise<number> {
  const { insertId } = await insert(db, input.name, input.price, input.stock, now, now).catch(
    nameTaken(input),
  )
  return Number(insertId)
}

/** @throws AppError `conflict` when the new name is taken. */
export async function changeProduct(
  db: Db,
  id: number,
  patch: ProductPatch,
  now: Date,
): Promise<void> {
  const changes = Object.fromEntries(
    Object.entries(patch).filter(([, value]) => value !== undefined),
  )
  await db
    .updateTable('product')
    .set((eb) => ({ ...changes, version: eb('version', '+', 1), updated_at: now }))
    .where('id', '=', id)
    .execute()
    .catch(nameTaken(patch))
}

export async function removeProduct(db: Db, id: number): Promise<void> {
  await remove(db, id)
}

const toProduct = ({ id, name, price, stock, version, createdAt, updatedAt }: Row): Product => ({
  id,
  name,
  price,
  stock,
  version,
  createdAt: timestampOf(createdAt),
  updatedAt: timestampOf(updatedAt),
})

const nameTaken =
  ({ name }: ProductPatch) =>
  (error: unknown) => {
    if (isDuplicateKey(error, 'product_name'))
      throw new AppError('conflict', `There is a product named "${name}" already`)
    throw error
  }
