import { hash } from 'node:crypto'
import { createAccount } from '../../src/access/accounts.ts'
import { createCredential } from '../../src/access/credentials.ts'
import type { Db } from '../../src/db/database.ts'
import { ROLES, type Subject } from '../../src/roles.ts'

/** Who calls in tests that are not about access: one who may do everything. */
export const OPERATOR: Subject = {
  id: 'account:1',
  accountId: 1,
  scopes: new Set(ROLES.operator),
  credential: { kind: 'key', id: '00000000-0000-4000-8000-000000000000' },
  expiresAt: Number.POSITIVE_INFINITY,
}

const API_KEY = `ofl_${'o'.repeat(43)}`

/** The header of an operator's API key, which each database of a test has. */
export const AS_OPERATOR = { authorization: `Bearer ${API_KEY}` }

/** How a Socket.IO client connects as the operator. */
export const OPERATOR_AUTH = { auth: { token: API_KEY } }

export async function addOperator(db: Db): Promise<void> {
  const account_id = await createAccount(db, {
    email: 'operator@test.example',
    password_hash: null,
    role: 'operator',
  })
  const { credential } = OPERATOR
  const token_hash = hash('sha256', API_KEY, 'base64url')
  await db
    .insertInto('credential')
    .values({ ...credential, account_id, token_hash, name: 'test', scopes: null })
    .execute()
}

/** Adds a member with an API key. */
export async function addMember(db: Db, name: string) {
  const accountId = await createAccount(db, {
    email: `${name}@test.example`,
    password_hash: null,
    role: 'member',
  })
  const { token } = await createCredential(db, { kind: 'key', accountId, name })
  return { id: `account:${accountId}`, auth: { token }, as: { authorization: `Bearer ${token}` } }
}
