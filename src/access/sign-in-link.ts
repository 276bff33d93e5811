import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Hono } from 'hono'
import { AppError } from '../errors.ts'
import { type AppContext, type Env, getContext } from '../http/context.ts'
import { withAccess } from '../http/router.ts'
import { findOrCreateOperator } from './accounts.ts'
import { type AccessDeps, startSession } from './routes.ts'

const PATH = '/sign-in'
const VALID_MS = 10 * 60_000

/** Signs the local operator in without a password, once. */
export class SignInLink {
  readonly #token = randomBytes(32).toString('base64url')
  readonly #expiresAt = Date.now() + VALID_MS
  #isUsed = false

  toUrl(serviceUrl: string): string {
    return `${serviceUrl}${PATH}?token=${this.#token}`
  }

  /** Whether the token is right; true only once. */
  use(token: string): boolean {
    const isRight = timingSafeEqual(digest(token), digest(this.#token))
    if (!isRight || this.#isUsed || Date.now() >= this.#expiresAt) return false
    this.#isUsed = true
    return true
  }
}

const digest = (text: string) => hash('sha256', text, 'buffer')

export function serveSignInLink(app: Hono<Env>, link: SignInLink, deps: AccessDeps): void {
  const signIn = async (c: AppContext) => {
    if (isPreview(c))
      throw new AppError('forbidden', 'A preview does not sign in: open the link in a browser')
    if (!link.use(c.req.query('token') ?? ''))
      throw new AppError(
        'unauthenticated',
        'The link has been used or has expired: restart the service, which gives another',
      )
    const db = deps.database.withSignal(getContext(c).signal)
    await startSession(c, db, await findOrCreateOperator(db), deps.behindTls)
    return c.redirect('/', 303)
  }
  app.get(PATH, withAccess('public', signIn))
}

/** Hono answers HEAD by the handler of GET. */
const isPreview = ({ req }: AppContext) =>
  req.method === 'HEAD' || (req.header('sec-purpose') ?? req.header('purpose')) !== undefined
