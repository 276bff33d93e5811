import { randomBytes } from 'node:crypto'
import {
  type IncomingMessage,
  type OutgoingHttpHeader,
  type OutgoingHttpHeaders,
  ServerResponse,
} from 'node:http'
import type { AppError } from '../errors.ts'

/**
 * For an API: its answers are data, so no browser may run, frame, sniff or embed them. Pages
 * override the policy.
 */
const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}

type Headers = OutgoingHttpHeaders | OutgoingHttpHeader[]

/** Ids from outside are kept only if they are safe to log and to send back. */
const ACCEPTABLE_ID = /^[\w.:-]{1,128}$/

/** What Node takes for `Expect: 100-continue`. */
const EXPECTS_CONTINUE = /(?:^|\W)100-continue(?:$|\W)/i

/**
 * With the number of the request behind it, an id that no other process gives. A UUID for each
 * takes ten times as long.
 */
const PROCESS_ID = randomBytes(9).toString('base64url')
let requests = 0

/** An id for a request that comes without one. */
export const newRequestId = () => `${PROCESS_ID}.${(++requests).toString(36)}`

/**
 * What every response carries, whoever writes it: the request's id and the security headers. They
 * are added where Node writes the head, because a middleware that touches Hono's headers costs a
 * tenth of a small request's time (docs/decisions/003-http-fast-path.md).
 */
export class AppResponse extends ServerResponse<IncomingMessage> {
  /** The caller's `X-Request-Id`, or a new one. */
  readonly requestId: string
  /**
   * When the server came to its request, by `performance.now()`: any wait behind others of the same
   * connection is over.
   */
  startedAt = 0
  /** Why its request is not served, where that was decided before the app got it. */
  refusal: AppError | undefined
  /**
   * Whether the client is to close the connection after this answer, so that its next request goes
   * elsewhere.
   */
  isGoodbye: (() => boolean) | undefined
  #bodyTimer: NodeJS.Timeout | undefined

  constructor(request: IncomingMessage) {
    super(request)
    const given = request.headers['x-request-id']
    this.requestId = typeof given === 'string' && ACCEPTABLE_ID.test(given) ? given : newRequestId()
  }

  /**
   * Cuts the connection unless the request's body is there by then: what dribbles in must not hold
   * it for good.
   */
  limitBody(request: IncomingMessage, timeoutMs: number): void {
    this.#bodyTimer = setTimeout(() => request.socket.destroy(), timeoutMs).unref()
    request.once('close', () => clearTimeout(this.#bodyTimer))
  }

  /**
   * Asks for the body where the client waits to be asked, so that a request that is refused costs
   * no transfer.
   */
  inviteBody(): void {
    const { headers, httpVersion } = this.req
    if (httpVersion === '1.1' && EXPECTS_CONTINUE.test(headers.expect ?? '')) this.writeContinue()
  }

  /** For a handler that sees to it itself. */
  liftBodyLimit(): void {
    clearTimeout(this.#bodyTimer)
  }

  /** Headers that override one of ours must be named in lower case. */
  override writeHead(status: number, message?: string | Headers, headers: Headers = {}): this {
    const given = typeof message === 'object' ? message : headers
    if (this.isGoodbye?.()) this.shouldKeepAlive = false
    const all = {
      ...SECURITY_HEADERS,
      'x-request-id': this.requestId,
      ...(Array.isArray(given) ? fromList(given) : given),
    }
    return typeof message === 'string'
      ? super.writeHead(status, message, all)
      : super.writeHead(status, all)
  }
}

/** Node takes headers as a flat list, too: `['Allow', 'GET', 'Connection', 'close']`. */
function fromList(list: OutgoingHttpHeader[]): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {}
  for (let index = 0; index < list.length; index += 2)
    headers[String(list[index])] = list[index + 1]
  return headers
}
