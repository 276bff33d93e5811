import type { IncomingMessage } from 'node:http'
import { parse } from 'hono/utils/cookie'
import { AppError } from '../errors.ts'
import { type AppContext, getContext } from '../http/context.ts'
import { isOwnOrigin } from '../realtime/realtime.ts'
import type { Subject } from '../roles.ts'
import type { Authenticator } from './authenticator.ts'
import type { FindClient } from './client.ts'

const BEARER = /^Bearer +([\w.~+/-]+=*)$/i
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** Node's names are in lower case. */
interface CallerHeaders {
  authorization?: string | undefined
  cookie?: string | undefined
  host?: string | undefined
  origin?: string | undefined
  'sec-fetch-site'?: string | undefined
}

/** Sets the subject of a request. */
export type Identify = (c: AppContext) => Promise<void> | undefined

/** `__Host-` makes browsers refuse the cookie from other hosts and without TLS. */
export const cookieName = (behindTls: boolean) => (behindTls ? '__Host-session' : 'session')

/**
 * Identifies the caller of a request by its API key or session.
 *
 * @throws AppError `unauthenticated` for an invalid Authorization header; `forbidden` for a change
 * by another site's page.
 */
export function identifyBy(authenticator: Authenticator, behindTls: boolean): Identify {
  const name = cookieName(behindTls)
  return (c) => {
    const headers: CallerHeaders = c.env?.incoming?.headers ?? c.req.header()
    const { authorization, cookie } = headers
    const session = cookie === undefined ? undefined : parse(cookie, name)[name]
    if (authorization === undefined && !session) return undefined
    if (authorization === undefined && !SAFE_METHODS.has(c.req.method) && !isSameOrigin(headers))
      throw new AppError('forbidden', 'A session changes data from its own site only: send Origin')
    const context = getContext(c)
    const found = authenticator.identify(
      authorization === undefined ? (session as string) : readBearer(authorization),
      context.client,
    )
    const set = (subject: Subject | undefined) => {
      context.subject = authorization === undefined ? subject : expectKnown(subject)
    }
    if (!(found instanceof Promise)) return void set(found)
    return found.then(set).catch((error) => {
      if (!(error instanceof AppError) || error.status < 500) throw error
      context.identityError = error
    })
  }
}

/** Identifies the caller of a request from memory only. */
export function identifyCachedBy(authenticator: Authenticator, behindTls: boolean) {
  const name = cookieName(behindTls)
  return ({ headers: { authorization, cookie } }: IncomingMessage): Subject | undefined => {
    const session = cookie === undefined ? undefined : parse(cookie, name)[name]
    const token = authorization === undefined ? session : authorization.match(BEARER)?.[1]
    return token === undefined ? undefined : authenticator.findCached(token)
  }
}

/**
 * Identifies the caller of a websocket by its token, or by the session of a page of our own.
 *
 * @throws AppError `unauthenticated` for an unknown token.
 */
export function identifySocketBy(
  authenticator: Authenticator,
  behindTls: boolean,
  findClient: FindClient,
) {
  const name = cookieName(behindTls)
  return async (request: IncomingMessage, token: unknown): Promise<Subject | undefined> => {
    const { headers } = request
    const identify = (found: string) => authenticator.identify(found, findClient(request))
    if (token !== undefined) return expectKnown(await identify(String(token)))
    if (headers.authorization !== undefined)
      return expectKnown(await identify(readBearer(headers.authorization)))
    const session = headers.cookie === undefined ? undefined : parse(headers.cookie, name)[name]
    return session && isSameOrigin(headers) ? identify(session) : undefined
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

/** Whether a page of our own, or no page, made the request. Older browsers send Origin only. */
function isSameOrigin({ origin, host, 'sec-fetch-site': site }: CallerHeaders): boolean {
  if (site !== undefined) return site === 'same-origin' || site === 'none'
  return origin !== undefined && isOwnOrigin(origin, host)
}
