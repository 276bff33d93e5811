import type { Transaction } from 'kysely'
import type { Db } from '../../db/database.ts'
import type { Tables } from '../../db/tables.ts'
import { retryLocked, transaction } from '../../db/transaction.ts'
import { AppError } from '../../errors.ts'
import { type PageRequest, Pager } from '../../http/pagination.ts'
import type { Realtime } from '../../realtime/realtime.ts'
import { timestampOf } from '../../timestamp.ts'
import { PRODUCTS, type ProductChange, productChanged } from './contract.ts'
import * as queries from './queries.ts'
import type { Product, ProductInput, ProductPage, ProductPatch } from './schema.ts'

/** The table's default. */
const FIRST_VERSION = 1

const pager = new Pager('id', /\d{1,10}/)

export interface ProductDeps {
  db: Db
  realtime: Realtime
}

/** Whether the caller who wants a change has seen this version. */
type IsCurrent = (version: number) => boolean

/** @throws AppError `not_found`. */
export async function getProduct(db: Db, id: number): Promise<Product> {
  return (await queries.findProduct(db, id)) ?? missing(id)
}

/**
 * One page in the order of creation. @throws AppError `invalid` when the cursor is not one of ours.
 */
export function listProducts(db: Db, page: PageRequest): Promise<ProductPage> {
  return pager.read(page, (after = '0', limit) =>
    queries.listProductsAfter(db, Number(after), limit),
  )
}

/**
 * One insert, which is a transaction of its own. @throws AppError `conflict` when the name is
 * taken.
 */
export async function createProduct(
  { db, realtime }: ProductDeps,
  input: ProductInput,
): Promise<Product> {
  const now = new Date()
  const id = await retryLocked(() => queries.insertProduct(db, input, now))
  const createdAt = timestampOf(now)
  const product = { id, ...input, version: FIRST_VERSION, createdAt, updatedAt: createdAt }
  announce(realtime, product, 'created')
  return product
}

/**
 * @throws AppError `not_found`, `precondition_failed` unless `isCurrent`, `conflict` when the name
 * is taken.
 */
export async function updateProduct(
  { db, realtime }: ProductDeps,
  id: number,
  patch: ProductPatch,
  isCurrent: IsCurrent,
): Promise<Product> {
  const product = await transaction(db, async (trx) => {
    await lockCurrent(trx, id, isCurrent)
    await queries.changeProduct(trx, id, patch, new Date())
    return getProduct(trx, id)
  })
  announce(realtime, product, 'updated')
  return product
}

/** @throws AppError `not_found`, `precondition_failed` unless `isCurrent`. */
export async function deleteProduct(
  { db, realtime }: ProductDeps,
  id: number,
  isCurrent: IsCurrent,
): Promise<void> {
  const version = await transaction(db, async (trx) => {
    const current = await lockCurrent(trx, id, isCurrent)
    await queries.removeProduct(trx, id)
    return current
  })
  announce(realtime, { id, version: version + 1 }, 'deleted')
}

/** Locks the row and gives its version, provided that the caller has seen that version. */
async function lockCurrent(
  trx: Transaction<Tables>,
  id: number,
  isCurrent: IsCurrent,
): Promise<number> {
  const version = (await queries.lockVersion(trx, id)) ?? missing(id)
  if (!isCurrent(version))
    throw new AppError(
      'precondition_failed',
      `The product is at version ${version} by now: read it again`,
    )
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
