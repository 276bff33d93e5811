import type { MiddlewareHandler } from 'hono'
import type { Env } from './env.ts'
import { setHeaders } from './headers.ts'

/** For an API: its answers are data, so a browser may neither run, frame, sniff nor embed them. Pages set their own policy. */
const HEADERS = {
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'Strict-Transport-Security': 'max-age=31536000; includeSubDomains',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}

/** A page of our own: scripts and styles from this server only, none from anywhere else. */
export const PAGE_POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

export const securityHeaders: MiddlewareHandler<Env> = (c, next) => {
  setHeaders(c, HEADERS)
  return next()
}
