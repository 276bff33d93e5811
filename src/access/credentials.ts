import { hash, randomBytes, randomUUID } from 'node:crypto'
import { type Generated, sql } from 'kysely'
import type { Db } from '../db/database.ts'
import { inPieces, prepared } from '../db/prepared.ts'
import { ROLES, type Scope, type Subject } from '../roles.ts'

declare module '../db/tables.ts' {
  interface Tables {
    credential: {
      id: string
      kind: 'session' | 'key' | 'link'
      token_hash: string
      account_id: number
      name: string
      scopes: string | null
      address: string | null
      created_at: Generated<Date>
      used_at: Generated<Date>
      expires_at: Date | null
    }
  }
}

/** Scanners recognise a leaked token by them; a link identifies no client. */
const PREFIXES = { session: 'ofs_', key: 'ofl_', link: '' }
const TOKEN = /^of[sl]_[\w-]{43}$/
const TOKEN_BYTES = 32
const MAX_NAME_LENGTH = 200

/** A session ends after 7 days without use, and after 30 in any case. */
const sessionEnd = sql<Date>`least(created_at + interval 30 day, now(3) + interval 7 day)`
const TOUCH_AFTER_MS = 60_000

interface NewCredential {
  kind: 'session' | 'key' | 'link'
  accountId: number
  /** A key's name, or a session's browser. */
  name: string
  /** Null for all that the account's role may do. */
  scopes?: readonly Scope[] | null
  address?: string | undefined
  expiresAt?: Date | null
}

/** Returns the token, which is stored as a hash only. */
export async function createCredential(
  db: Db,
  { kind, accountId, name, scopes = null, address, expiresAt = null }: NewCredential,
): Promise<{ id: string; token: string }> {
  const id = randomUUID()
  const token = PREFIXES[kind] + randomBytes(TOKEN_BYTES).toString('base64url')
  const session_end = sql<Date>`now(3) + interval 7 day`
  await db
    .insertInto('credential')
    .values({
      id,
      kind,
      token_hash: toHash(token),
      account_id: accountId,
      name: name.slice(0, MAX_NAME_LENGTH),
      scopes: scopes && JSON.stringify(scopes),
      address: address ?? null,
      expires_at: kind === 'session' ? session_end : expiresAt,
    })
    .execute()
  return { id, token }
}

export const isToken = (text: string) => TOKEN.test(text)

export async function findSubject(db: Db, token: string): Promise<Subject | undefined> {
  const [row] = await selectByToken(db, toHash(token))
  if (!row) return undefined
  const { id, kind, accountId, expiresAt, usedAt, now } = row
  if (now.getTime() - usedAt.getTime() > TOUCH_AFTER_MS) await touch(db, id)
  const scopes: readonly string[] = ROLES[row.role]
  const granted = row.scopes === null ? scopes : (JSON.parse(row.scopes) as string[])
  return {
    id: `account:${accountId}`,
    accountId,
    scopes: new Set(granted.filter((scope) => scopes.includes(scope))),
    credential: { kind, id },
    expiresAt: expiresAt?.getTime() ?? Number.POSITIVE_INFINITY,
  }
}

/** Uses a sign-in link up; returns whose it was, or undefined if it is not valid. */
export async function takeLink(db: Db, token: string): Promise<number | undefined> {
  const link = await db
    .selectFrom('credential')
    .select(['id', 'account_id as accountId'])
    .where('token_hash', '=', toHash(token))
    .where('kind', '=', 'link')
    .where(isValid)
    .executeTakeFirst()
  if (!link) return undefined
  const taken = db.deleteFrom('credential').where('id', '=', link.id)
  const { numDeletedRows } = await taken.executeTakeFirstOrThrow()
  return numDeletedRows > 0n ? link.accountId : undefined
}

/** Newest first. */
export const listCredentials = (db: Db, accountId: number, kind: 'session' | 'key') =>
  db
    .selectFrom('credential')
    .select(['id', 'name', 'scopes', 'address'])
    .select(['created_at as createdAt', 'used_at as usedAt', 'expires_at as expiresAt'])
    .where('account_id', '=', accountId)
    .where('kind', '=', kind)
    .where(isValid)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()

/** Those of `ids` that are neither revoked nor expired, with what their accounts may do. */
export async function findValid(
  db: Db,
  ids: readonly string[],
): Promise<Map<string, ReadonlySet<string>>> {
  const rows = await inPieces(ids, (piece) =>
    db
      .selectFrom('credential')
      .innerJoin('account', 'account.id', 'credential.account_id')
      .select(['credential.id', 'role'])
      .where('credential.id', 'in', piece)
      .where(isValid)
      .execute(),
  )
  return new Map(rows.map(({ id, role }) => [id, new Set<string>(ROLES[role])]))
}

/** Removes some or all of an account, and returns their ids. */
export async function deleteCredentials(
  db: Db,
  accountId: number,
  kind: 'session' | 'key',
  only: { id?: string; except?: string } = {},
): Promise<string[]> {
  let found = db
    .selectFrom('credential')
    .select('id')
    .where('account_id', '=', accountId)
    .where('kind', '=', kind)
  if (only.id !== undefined) found = found.where('id', '=', only.id)
  if (only.except !== undefined) found = found.where('id', '!=', only.except)
  return deleteByIds(db, await found.execute())
}

/** Deletes by id, because a range would lock valid ones. */
export async function deleteExpired(db: Db, limit: number): Promise<void> {
  const expired = await db
    .selectFrom('credential')
    .select('id')
    .where('expires_at', '<', sql<Date>`now(3)`)
    .limit(limit)
    .execute()
  await deleteByIds(db, expired)
}

const isValid = sql<boolean>`(expires_at is null or expires_at > now(3))`

const selectByToken = prepared('credential.by-token', (db, tokenHash: string) =>
  db
    .selectFrom('credential')
    .innerJoin('account', 'account.id', 'credential.account_id')
    .select(['credential.id', 'kind', 'scopes', 'role', 'account.id as accountId'])
    .select(['used_at as usedAt', 'expires_at as expiresAt', sql<Date>`now(3)`.as('now')])
    .where('token_hash', '=', tokenHash)
    .where(isValid)
    .where(sql<boolean>`kind != 'link'`)
    .$narrowType<{ kind: 'session' | 'key' }>(),
)

async function deleteByIds(db: Db, rows: readonly { id: string }[]): Promise<string[]> {
  const ids = rows.map(({ id }) => id)
  if (ids.length > 0) await db.deleteFrom('credential').where('id', 'in', ids).execute()
  return ids
}

async function touch(db: Db, id: string) {
  await db
    .updateTable('credential')
    .set({
      used_at: sql<Date>`now(3)`,
      expires_at: sql<Date>`if(kind = 'session', ${sessionEnd}, expires_at)`,
    })
    .where('id', '=', id)
    .execute()
}

/** A plain hash, because a random token cannot be guessed. */
const toHash = (token: string) => hash('sha256', token, 'base64url')
