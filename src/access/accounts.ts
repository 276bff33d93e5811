import type { Generated, GeneratedAlways } from 'kysely'
import type { Db } from '../db/database.ts'
import { isDuplicateKey } from '../db/errors.ts'
import { AppError } from '../errors.ts'
import type { Role } from '../roles.ts'

declare module '../db/tables.ts' {
  interface Tables {
    account: {
      id: GeneratedAlways<number>
      email: string
      /** Null if the account signs in by a link only. */
      password_hash: string | null
      role: Role
      created_at: Generated<Date>
    }
  }
}

/** An address that no mail reaches. */
const LOCAL_OPERATOR = 'operator@localhost'

const COLUMNS = ['id', 'email', 'role', 'password_hash as passwordHash'] as const

export const findAccount = (db: Db, id: number) =>
  db.selectFrom('account').select(COLUMNS).where('id', '=', id).executeTakeFirst()

export const findByEmail = (db: Db, email: string) =>
  db.selectFrom('account').select(COLUMNS).where('email', '=', email).executeTakeFirst()

/** Returns the id. @throws AppError `conflict` when the address is taken. */
export async function createAccount(
  db: Db,
  account: { email: string; password_hash: string | null; role: Role },
): Promise<number> {
  try {
    const { insertId } = await db.insertInto('account').values(account).executeTakeFirstOrThrow()
    return Number(insertId)
  } catch (error) {
    if (!isDuplicateKey(error, 'account_email')) throw error
    throw new AppError('conflict', 'There is an account with this address already')
  }
}

/** Returns the id of the local operator, who has no password. */
export async function findOrCreateOperator(db: Db): Promise<number> {
  const found = await findByEmail(db, LOCAL_OPERATOR)
  if (found) return found.id
  // Several processes may start together.
  await db
    .insertInto('account')
    .ignore()
    .values({ email: LOCAL_OPERATOR, password_hash: null, role: 'operator' })
    .execute()
  return findOrCreateOperator(db)
}

export async function changeAccount(
  db: Db,
  id: number,
  changes: { password_hash?: string; role?: Role },
): Promise<void> {
  await db.updateTable('account').set(changes).where('id', '=', id).execute()
}
