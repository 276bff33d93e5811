import { randomBytes } from 'node:crypto'
import {
  type IncomingMessage,
  type OutgoingHttpHeader,
  type OutgoingHttpHeaders,
  ServerResponse,
} from 'node:http'
import type { MiddlewareHandler } from 'hono'
import { cors } from 'hono/cors'
import type { AppError } from '../errors.ts'

/** For an API's data; pages have their own policy. */
const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}

/** Keeps browsers on TLS. */
const STRICT_TRANSPORT = {
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
}

/** Besides what CORS always exposes. */
const EXPOSED_HEADERS = [
  'Accept-Encoding,Allow,Content-Disposition,ETag,Location',
  'RateLimit,RateLimit-Policy,Retry-After,X-Request-Id',
].flatMap((names) => names.split(','))

/** Safe to log and to send back. */
const ACCEPTABLE_ID = /^[\w.:-]{1,128}$/

/** Matches as Node does. */
const EXPECTS_CONTINUE = /(?:^|\W)100-continue(?:$|\W)/i

/** Unique across processes, at a tenth of a UUID's cost. */
const PROCESS_ID = randomBytes(9).toString('base64url')
let requests = 0

export const newRequestId = () => `${PROCESS_ID}.${(++requests).toString(36)}`

/** OPTIONS requests other than preflights reach the app. */
export function allowOrigins(origin: string[]): MiddlewareHandler {
  const allow = cors({ origin, exposeHeaders: EXPOSED_HEADERS })
  return (c, next) => {
    const isPreflight = c.req.header('origin') && c.req.header('access-control-request-method')
    return c.req.method === 'OPTIONS' && !isPreflight ? next() : allow(c, next)
  }
}

type Headers = OutgoingHttpHeaders | OutgoingHttpHeader[]

/** Adds request id and security headers to every response (docs/decisions/003). */
export class AppResponse extends ServerResponse<IncomingMessage> {
  readonly requestId: string
  /** By `performance.now()`, after any wait in its connection. */
  startedAt = 0
  /** Why the request is refused. */
  refusal: AppError | undefined
  /** The address of the client, behind any proxies. */
  client = ''
  behindTls = false
  /** Such as `{ ratelimit: … }`. */
  rateLimit: Record<string, string> | undefined
  shouldClose: (() => boolean) | undefined
  #bodyTimer: NodeJS.Timeout | undefined

  constructor(request: IncomingMessage) {
    super(request)
    const given = request.headers['x-request-id']
    this.requestId = typeof given === 'string' && ACCEPTABLE_ID.test(given) ? given : newRequestId()
  }

  /** Closes the connection unless the body arrives in time. */
  startBodyTimeout(timeoutMs: number): void {
    this.#bodyTimer = setTimeout(() => this.req.socket.destroy(), timeoutMs).unref()
    this.req.once('close', () => this.clearBodyTimeout())
  }

  clearBodyTimeout(): void {
    clearTimeout(this.#bodyTimer)
  }

  /** Sends 100 Continue to a client that expects it. */
  inviteBody(): void {
    const { headers, httpVersion } = this.req
    if (httpVersion === '1.1' && EXPECTS_CONTINUE.test(headers.expect ?? '')) this.writeContinue()
  }

  /** Headers that override a default must be named in lower case. */
  override writeHead(status: number, message?: string | Headers, headers: Headers = {}): this {
    const given = typeof message === 'object' ? message : headers
    if (this.shouldClose?.()) this.shouldKeepAlive = false
    const all = {
      ...SECURITY_HEADERS,
      ...(this.behindTls && STRICT_TRANSPORT),
      'x-request-id': this.requestId,
      ...this.rateLimit,
      ...(Array.isArray(given) ? toObject(given) : given),
    }
    return typeof message === 'string'
      ? super.writeHead(status, message, all)
      : super.writeHead(status, all)
  }
}

/** From Node's flat list. */
function toObject(list: OutgoingHttpHeader[]): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {}
  for (let index = 0; index < list.length; index += 2)
    headers[String(list[index])] = list[index + 1]
  return headers
}
