import type { Generated, GeneratedAlways, Transaction } from 'kysely'
import type { Db } from '../../db/database.ts'
import { isDuplicateKey } from '../../db/errors.ts'
import { prepared, preparedWrite } from '../../db/prepared.ts'
import { type Tables, toTimestamp } from '../../db/tables.ts'
import { retryLocked, transaction } from '../../db/transaction.ts'
import { AppError } from '../../errors.ts'
import type { CheckVersion } from '../../http/etag.ts'
import { type PageRequest, Pager } from '../../http/pagination.ts'
import type { Realtime } from '../../realtime/realtime.ts'
import {
  PRODUCTS,
  type Product,
  type ProductChange,
  type ProductInput,
  type ProductPatch,
  productChanged,
} from './contract.ts'

declare module '../../db/tables.ts' {
  interface Tables {
    product: {
      id: GeneratedAlways<number>
      name: string
      /** DECIMAL(12,2): a string, because a JavaScript number cannot hold every amount. */
      price: string
      stock: number
      version: Generated<number>
      created_at: Generated<Date>
      updated_at: Generated<Date>
    }
  }
}

interface ProductDeps {
  db: Db
  realtime: Realtime
}

const pager = new Pager('id', /\d{1,10}/)

/** @throws AppError `not_found`. */
export async function getProduct(db: Db, id: number): Promise<Product> {
  const [row] = await selectById(db, id)
  return row ? toProduct(row) : missing(id)
}

/** In order of creation. */
export function listProducts(db: Db, page: PageRequest) {
  return pager.read(page, async (after = '0', limit) =>
    (await selectAfter(db, Number(after), limit)).map(toProduct),
  )
}

/** @throws AppError `conflict` when the name is taken. */
export async function createProduct(
  { db, realtime }: ProductDeps,
  input: ProductInput,
): Promise<Product> {
  const { name, price, stock } = input
  // Set here: the product need not be read back.
  const now = new Date()
  const { insertId } = await retryLocked(() => insert(db, name, price, stock, now, now)).catch(
    refuseTakenName(name),
  )
  const createdAt = toTimestamp(now)
  const product = { id: Number(insertId), ...input, version: 1, createdAt, updatedAt: createdAt }
  announce(realtime, product, 'created')
  return product
}

/** @throws AppError `not_found`, `precondition_failed`, `conflict` when the name is taken. */
export async function updateProduct(
  { db, realtime }: ProductDeps,
  id: number,
  patch: ProductPatch,
  checkVersion: CheckVersion,
): Promise<Product> {
  const product = await transaction(db, async (trx) => {
    await lock(trx, id, checkVersion)
    await trx
      .updateTable('product')
      .set((eb) => ({ ...patch, version: eb('version', '+', 1), updated_at: new Date() }))
      .where('id', '=', id)
      .execute()
      .catch(refuseTakenName(patch.name))
    return getProduct(trx, id)
  })
  announce(realtime, product, 'updated')
  return product
}

/** @throws AppError `not_found`, `precondition_failed`. */
export async function deleteProduct(
  { db, realtime }: ProductDeps,
  id: number,
  checkVersion: CheckVersion,
): Promise<void> {
  const version = await transaction(db, async (trx) => {
    const current = await lock(trx, id, checkVersion)
    await trx.deleteFrom('product').where('id', '=', id).execute()
    return current
  })
  announce(realtime, { id, version: version + 1 }, 'deleted')
}

async function lock(trx: Transaction<Tables>, id: number, checkVersion: CheckVersion) {
  const [{ version } = missing(id)] = await selectVersion(trx, id)
  checkVersion(version)
  return version
}

function announce(
  realtime: Realtime,
  { id, version }: Pick<Product, 'id' | 'version'>,
  change: ProductChange['change'],
) {
  realtime.emit(PRODUCTS, productChanged, { id, version, change })
}

function missing(id: number): never {
  throw new AppError('not_found', `There is no product ${id}`)
}

const refuseTakenName = (name: string | undefined) => (error: unknown) => {
  if (!isDuplicateKey(error, 'product_name')) throw error
  throw new AppError('conflict', `There is a product named "${name}" already`)
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

const selectById = prepared('product.by-id', (db, id: number) =>
  db.selectFrom('product').select(COLUMNS).where('id', '=', id),
)

const selectAfter = prepared('product.page', (db, id: number, limit: number) =>
  db.selectFrom('product').select(COLUMNS).where('id', '>', id).orderBy('id').limit(limit),
)

const selectVersion = prepared('product.version', (db, id: number) =>
  db.selectFrom('product').select('version').where('id', '=', id).forUpdate(),
)

const insert = preparedWrite(
  'product.insert',
  (db, name: string, price: string, stock: number, created_at: Date, updated_at: Date) =>
    db.insertInto('product').values({ name, price, stock, created_at, updated_at }),
)

type Row = Awaited<ReturnType<typeof selectById>>[number]

const toProduct = (row: Row): Product => ({
  ...row,
  createdAt: toTimestamp(row.createdAt),
  updatedAt: toTimestamp(row.updatedAt),
})

const EXAMPLES = 1_000
const ADJECTIVES = 'Plain Copper Folding Quiet Heavy Glass Compact Woven Bright Solid'.split(' ')
const NOUNS = 'kettle lamp chair desk clock shelf bottle basket mirror rug'.split(' ')

/** Fills an empty table with the same products each time; returns their number. */
export async function seedProducts(db: Db): Promise<number> {
  if (await db.selectFrom('product').select('id').limit(1).executeTakeFirst()) return 0
  const examples = Array.from({ length: EXAMPLES }, (_, index) => ({
    name: `${ADJECTIVES[index % 10]} ${NOUNS[Math.floor(index / 10) % 10]} no. ${index + 1}`,
    price: (((index * 37) % 20_000) / 100 + 5).toFixed(2),
    stock: (index * 13) % 250,
  }))
  await db.insertInto('product').values(examples).execute()
  return EXAMPLES
}
