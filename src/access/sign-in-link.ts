import type { Hono } from 'hono'
import type { Db } from '../db/database.ts'
import { AppError } from '../errors.ts'
import { type AppContext, type Env, getContext } from '../http/context.ts'
import { withAccess } from '../http/router.ts'
import { findOrCreateOperator } from './accounts.ts'
import { createCredential, takeLink } from './credentials.ts'
import { type AccessDeps, startSession } from './routes.ts'

const PATH = '/sign-in'
const VALID_MS = 10 * 60_000

/**
 * Returns the path of a link that signs the local operator in once, in any process.
 */
export async function createSignInLink(db: Db): Promise<string> {
  const accountId = await findOrCreateOperator(db)
  const expiresAt = new Date(Date.now() + VALID_MS)
  const link = { kind: 'link', accountId, name: 'sign-in link', expiresAt } as const
  const { token } = await createCredential(db, link)
  return `${PATH}?token=${token}`
}

export function serveSignInLink(app: Hono<Env>, { database, behindTls }: AccessDeps): void {
  const signIn = async (c: AppContext) => {
    if (isPreview(c))
      throw new AppError('forbidden', 'A preview does not sign in: open the link in a browser')
    const db = database.withSignal(getContext(c).signal)
    const accountId = await takeLink(db, c.req.query('token') ?? '')
    if (accountId === undefined)
      throw new AppError(
        'unauthenticated',
        'The link has been used or has expired: restart the service, which gives another',
      )
    await startSession(c, db, accountId, behindTls)
    return c.redirect('/', 303)
  }
  app.get(PATH, withAccess('public', signIn))
}

/** Hono answers HEAD by the handler of GET. */
const isPreview = ({ req }: AppContext) =>
  req.method === 'HEAD' || (req.header('sec-purpose') ?? req.header('purpose')) !== undefined
