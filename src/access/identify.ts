import type { IncomingMessage } from 'node:http'
import { parse } from 'hono/utils/cookie'
import { AppError } from '../errors.ts'
import type { AppContext } from '../http/context.ts'
import type { Subject } from '../roles.ts'
import type { Authenticator } from './authenticator.ts'

const BEARER = /^Bearer +([\w.~+/-]+=*)$/i
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The headers that say who calls; Node's names are in lower case. */
interface CallerHeaders {
  authorization?: string | undefined
  cookie?: string | undefined
  host?: string | undefined
  origin?: string | undefined
  'sec-fetch-site'?: string | undefined
}

/** Who calls, or undefined for an anonymous client. */
export type Identify = (c: AppContext) => Subject | undefined | Promise<Subject | undefined>

/** `__Host-` makes browsers refuse the cookie from other hosts and without TLS. */
export const cookieName = (behindTls: boolean) => (behindTls ? '__Host-session' : 'session')

/**
 * Identifies the caller of a request by its API key or session.
 *
 * @throws AppError `unauthenticated` for an invalid Authorization header; `forbidden` for a cookie
 * that another site has a browser send with a change.
 */
export function identifyBy(authenticator: Authenticator, behindTls: boolean): Identify {
  const name = cookieName(behindTls)
  return (c) => {
    const headers: CallerHeaders = c.env?.incoming?.headers ?? c.req.header()
    if (headers.authorization !== undefined) {
      const found = authenticator.identify(readBearer(headers.authorization))
      return found instanceof Promise ? found.then(expectKnown) : expectKnown(found)
    }
    const token = headers.cookie === undefined ? undefined : parse(headers.cookie, name)[name]
    if (!token) return undefined
    if (!SAFE_METHODS.has(c.req.method) && !isSameOrigin(headers))
      throw new AppError('forbidden', 'A session changes data from its own site only: send Origin')
    return authenticator.identify(token)
  }
}

/**
 * Identifies the caller of a websocket by its token, or by the session of a page of our own.
 *
 * @throws AppError `unauthenticated` for an unknown token.
 */
export function identifySocketBy(authenticator: Authenticator, behindTls: boolean) {
  const name = cookieName(behindTls)
  return async ({ headers }: IncomingMessage, token: unknown): Promise<Subject | undefined> => {
    if (token !== undefined) return expectKnown(await authenticator.identify(String(token)))
    if (headers.authorization !== undefined)
      return expectKnown(await authenticator.identify(readBearer(headers.authorization)))
    const session = headers.cookie === undefined ? undefined : parse(headers.cookie, name)[name]
    return session && isSameOrigin(headers) ? authenticator.identify(session) : undefined
  }
}

function readBearer(authorization: string): string {
  const [, token] = authorization.match(BEARER) ?? []
  if (token === undefined) throw unknownToken()
  return token
}

function expectKnown(subject: Subject | undefined): Subject {
  if (subject) return subject
  throw unknownToken()
}

const unknownToken = () =>
  new AppError(
    'unauthenticated',
    'The token is unknown, revoked or expired: send `Authorization: Bearer` with a valid API key',
    { headers: { 'WWW-Authenticate': 'Bearer error="invalid_token"' } },
  )

/** Whether a page of our own, or no page at all, made the request. Older browsers send Origin only. */
function isSameOrigin({ origin, host, 'sec-fetch-site': site }: CallerHeaders): boolean {
  if (site !== undefined) return site === 'same-origin' || site === 'none'
  return origin !== undefined && URL.parse(origin)?.host === host
}
