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

/** Adds an operator with an API key; returns the header by which requests are theirs. */
export async function addOperator(db: Db): Promise<{ authorization: string }> {
  const account = { email: 'operator@example.com', password_hash: null, role: 'operator' } as const
  const accountId = await createAccount(db, account)
  const { token } = await createCredential(db, {
    kind: 'key',
    accountId,
    name: 'test',
    scopes: ROLES.operator,
  })
  return { authorization: `Bearer ${token}` }
}
