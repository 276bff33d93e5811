import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, STATUS_CODES } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import type { Hono } from 'hono'
import { AppError, type ErrorCode } from '../errors.ts'
import { explainListen, urlOf } from './address.ts'
import type { Env } from './env.ts'
import { problemOf, problemResponse } from './problem.ts'
import { AppResponse } from './response.ts'

const HEADERS_TIMEOUT_MS = 10_000
const BODY_TIMEOUT_MS = 60_000
const KEEP_ALIVE_TIMEOUT_MS = 65_000
const DRAIN_POLL_MS = 20

/** The listening socket, from the bytes up to the app: what Node's parser lets through but should not is refused here. */
export class HttpServer implements AsyncDisposable {
  readonly node: Server<typeof IncomingMessage, typeof AppResponse>
  readonly #stopping: AbortSignal
  #listener: ReturnType<typeof getRequestListener> | undefined

  /** @param stopping when it aborts, answers ask their clients to close the connection. */
  constructor(stopping: AbortSignal) {
    this.#stopping = stopping
    this.node = createServer({
      ServerResponse: AppResponse,
      headersTimeout: HEADERS_TIMEOUT_MS,
      // Node has one for all requests; ours can be lifted for an upload.
      requestTimeout: 0,
      // Longer than a load balancer's usual minute: the side that closes first must be the one that sends requests.
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    })
    // Now, because Socket.IO puts itself before the listeners that are there when it comes.
    this.node.on('request', (incoming, outgoing) => this.#handle(incoming, outgoing))
    this.node.on('clientError', refuseBytes)
  }

  /** Starts to listen and gives the URL. @throws AppError when the port is taken or not allowed. */
  async listen(app: Hono<Env>, host: string, port: number): Promise<string> {
    this.#listener = getRequestListener(app.fetch, { errorHandler: refuseRequest })
    this.node.listen(port, host)
    await once(this.node, 'listening').catch((error) => {
      throw new AppError('unavailable', explainListen(error, host, port), { cause: error })
    })
    return urlOf(this.node.address() as AddressInfo)
  }

  /**
   * Refuses new connections and resolves when the requests in flight are answered, or after `timeoutMs`.
   * Node waits for idle keep-alive connections too, hence the closing over and over.
   */
  async drain(timeoutMs: number): Promise<void> {
    const closed = new AbortController()
    this.node.close(() => closed.abort())
    const until = performance.now() + timeoutMs
    while (!closed.signal.aborted && performance.now() < until) {
      this.node.closeIdleConnections()
      await sleep(DRAIN_POLL_MS, undefined, { signal: closed.signal }).catch(() => {})
    }
  }

  async [Symbol.asyncDispose]() {
    this.node.closeAllConnections()
    if (this.node.listening) await new Promise((resolve) => this.node.close(resolve))
  }

  #handle(incoming: IncomingMessage, outgoing: AppResponse) {
    outgoing.stopping = this.#stopping
    const flaw = flawOf(incoming)
    if (flaw) return sendProblem(outgoing, flaw)
    if (hasBody(incoming)) outgoing.limitBody(incoming, BODY_TIMEOUT_MS)
    void this.#listener?.(incoming, outgoing)
  }
}

const hasBody = ({ headers }: IncomingMessage) => 'transfer-encoding' in headers || 'content-length' in headers

/** What makes a request ambiguous, so that a proxy and we could disagree on where it goes. */
function flawOf({ url = '', method, rawHeaders }: IncomingMessage): AppError | undefined {
  if (url[0] !== '/' && !(url === '*' && method === 'OPTIONS'))
    return new AppError('bad_request', 'Send a path, not an absolute URL, as the request target')
  let hosts = 0
  for (let index = 0; index < rawHeaders.length; index += 2)
    if (rawHeaders[index]?.length === 4 && rawHeaders[index]?.toLowerCase() === 'host') hosts++
  if (hosts > 1) return new AppError('bad_request', 'Send one Host header')
  return undefined
}

function sendProblem(outgoing: AppResponse, error: AppError) {
  const body = JSON.stringify(problemOf(error, '', outgoing.requestId))
  outgoing.shouldKeepAlive = false
  outgoing.writeHead(error.status, { 'content-type': 'application/problem+json', 'content-length': Buffer.byteLength(body) })
  outgoing.end(body)
}

/** A request that cannot be turned into a `Request`: a malformed host or path. */
const refuseRequest = (error: unknown) =>
  problemResponse(new AppError('bad_request', error instanceof Error ? error.message : 'Malformed request'), '')

const CODES_OF_PARSER: Record<string, [ErrorCode, string]> = {
  HPE_HEADER_OVERFLOW: ['headers_too_large', 'The headers are too large'],
  ERR_HTTP_REQUEST_TIMEOUT: ['request_timeout', 'The request did not arrive in time'],
}

/** Bytes that are no HTTP request, or not a whole one. */
function refuseBytes(error: NodeJS.ErrnoException, socket: Socket) {
  if (!socket.writable || error.code === 'ECONNRESET') return socket.destroy()
  const [code, message] = CODES_OF_PARSER[error.code ?? ''] ?? ['bad_request', 'This is not a valid HTTP request']
  const problem = new AppError(code, message)
  const body = JSON.stringify(problemOf(problem, ''))
  const head = [
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`,
    'Content-Type: application/problem+json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}
