import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { type AddressInfo, type Socket, Server as TcpServer } from 'node:net'
import { performance } from 'node:perf_hooks'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import type { Hono } from 'hono'
import { AppError, type ErrorCode, overloaded } from '../errors.ts'
import { explainListen, urlOf } from './address.ts'
import { Connection, type Load } from './connection.ts'
import type { Env } from './context.ts'
import { problemBytes, problemResponse, writeProblem } from './errors.ts'
import { AppResponse } from './response.ts'

const HEADERS_TIMEOUT_MS = 10_000
const BODY_TIMEOUT_MS = 60_000
const KEEP_ALIVE_TIMEOUT_MS = 65_000
const DRAIN_POLL_MS = 20
/**
 * How long a connection must be quiet during the drain before it is closed: this share of the drain
 * timeout, a second at most.
 */
const QUIET_SHARE = 0.1
const MAX_QUIET_MS = 1_000
/**
 * Above it, a connection has one request at a time. Protects memory only: what bounds load is how
 * long a request waits for a connection of the pool, or for a thread.
 */
const MAX_IN_FLIGHT = 10_000
/** What a request without a Host header was sent to. */
const DEFAULT_HOST = 'localhost'

/** Where requests wait before the app gets them. */
export interface Backlog {
  /** Calls one of the functions, once: now or after others. */
  add(waiter: { admit: () => void; refuse: (error: AppError) => void }): void
}

export interface HttpServerOptions {
  /** When it aborts, answers ask their clients to close the connection. */
  leaving: AbortSignal
  /**
   * Which offers of another protocol are accepted; the others are ignored, and their requests
   * served (RFC 9110, 7.8).
   */
  shouldUpgrade?: (request: IncomingMessage) => boolean
  /** How many clients may be connected at once; another one is disconnected at once. */
  maxConnections?: number
  /**
   * Where a request for a path waits until it can be served soon; absent for one that is served at
   * once.
   */
  backlogFor?: (path: string) => Backlog | undefined
}

/**
 * The listening socket, from the bytes up to the app: what Node's parser lets through but should
 * not is refused here.
 */
export class HttpServer implements AsyncDisposable {
  readonly node: Server<typeof IncomingMessage, typeof AppResponse>
  readonly #leaving: AbortSignal
  readonly #connections = new Map<Socket, Connection>()
  readonly #backlogFor: (path: string) => Backlog | undefined
  readonly #load: Load = { inFlight: 0 }
  #listener: ReturnType<typeof getRequestListener> | undefined

  constructor({
    leaving,
    shouldUpgrade = () => false,
    maxConnections = Number.POSITIVE_INFINITY,
    backlogFor = () => undefined,
  }: HttpServerOptions) {
    this.#leaving = leaving
    this.#backlogFor = backlogFor
    this.node = createServer({
      ServerResponse: AppResponse,
      headersTimeout: HEADERS_TIMEOUT_MS,
      // Node has one for all requests; ours can be lifted for an upload.
      requestTimeout: 0,
      // Longer than a load balancer's usual minute: the side that closes first must be the one that
      // sends requests.
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      // `flawOf` does it, with a problem for an answer.
      requireHostHeader: false,
      // The other protocol takes the socket at once, so nothing may be in flight on it.
      shouldUpgradeCallback: (request) =>
        shouldUpgrade(request) && !this.#connections.get(request.socket)?.inFlight,
    })
    this.node.maxConnections = maxConnections
    this.node.on('connection', (socket) => this.#connect(socket))
    this.node.on('upgrade', (request) => this.#connections.delete(request.socket))
    // Now, because Socket.IO puts itself before the listeners that are there when it comes.
    this.node.on('request', (_, outgoing) => this.#receive(outgoing))
    // Node would ask for every body at once: here whoever reads it does (`inviteBody`).
    this.node.on('checkContinue', (_, outgoing) => this.#receive(outgoing))
    // An expectation that is not known may be ignored (RFC 9110, 10.1.1).
    this.node.on('checkExpectation', (_, outgoing) => this.#receive(outgoing))
    this.node.on('clientError', (error, socket) => this.#refuseBytes(error, socket as Socket))
  }

  /** How many requests have no complete answer yet. */
  get inFlight(): number {
    return this.#load.inFlight
  }

  /** Starts to listen and gives the URL. @throws AppError when the port is taken or not allowed. */
  async listen(app: Hono<Env>, host: string, port: number): Promise<string> {
    this.#listener = getRequestListener(app.fetch, {
      hostname: DEFAULT_HOST,
      errorHandler: refuseRequest,
    })
    this.node.listen(port, host)
    await once(this.node, 'listening').catch((error) => {
      throw new AppError('unavailable', explainListen(error, host, port), { cause: error })
    })
    // A connection that the system cannot accept now is no reason to end.
    this.node.on('error', () => {})
    return urlOf(this.node.address() as AddressInfo)
  }

  /**
   * Refuses new connections and resolves when the requests in flight are answered, or after
   * `timeoutMs`. A connection without a request is closed when it has been quiet for a while: one
   * that is in use has its next request on its way, whose answer asks the client to close.
   */
  async drain(timeoutMs: number): Promise<void> {
    const closed = new AbortController()
    // After the phase of the event loop that accepts connections: a client whose connection waits
    // to be accepted is reset.
    await nextTurn()
    // Not the `close` of `http.Server`, which cuts every connection that has no request.
    TcpServer.prototype.close.call(this.node, () => closed.abort())
    const begun = performance.now()
    const quietMs = Math.min(MAX_QUIET_MS, timeoutMs * QUIET_SHARE)
    for (const connection of this.#connections.values()) connection.watch(begun)
    while (!closed.signal.aborted && performance.now() - begun < timeoutMs) {
      for (const connection of this.#connections.values())
        connection.closeIfQuiet(performance.now(), quietMs)
      await sleep(DRAIN_POLL_MS, undefined, { signal: closed.signal }).catch(() => {})
    }
  }

  async [Symbol.asyncDispose]() {
    this.node.closeAllConnections()
    await new Promise((resolve) => this.node.close(resolve))
  }

  #connect(socket: Socket) {
    this.#connections.set(
      socket,
      new Connection(socket, (outgoing) => this.#serve(outgoing), this.#load),
    )
    socket.once('close', () => this.#connections.delete(socket))
  }

  #receive(outgoing: AppResponse) {
    const { req: incoming, requestId } = outgoing
    const connection = this.#connections.get(incoming.socket)
    outgoing.isGoodbye = () => this.#leaving.aborted && connection?.last === outgoing
    // Whatever others pipeline, a client that sends one request at a time, as a probe does, is not
    // refused for it.
    const isAdmitted = this.#load.inFlight < MAX_IN_FLIGHT || connection?.inFlight === 0
    if (isAdmitted) connection?.receive(outgoing)
    else
      writeProblem(
        outgoing,
        overloaded('Too many requests are in flight: try again later'),
        incoming.url ?? '',
        requestId,
      )
  }

  #serve(outgoing: AppResponse) {
    const { req: incoming, requestId } = outgoing
    const flaw = flawOf(incoming)
    if (flaw) return writeProblem(outgoing, flaw, '', requestId)
    // A question to the server as a whole: whether it is there (RFC 9110, 9.3.7).
    if (incoming.url === '*') return void outgoing.writeHead(204).end()
    outgoing.startedAt = performance.now()
    // What a browser asks before it sends a request needs nothing to wait for.
    const backlog = incoming.method === 'OPTIONS' ? undefined : this.#backlogFor(incoming.url ?? '')
    if (!backlog) return this.#begin(outgoing)
    const refuse = (error: AppError) => {
      outgoing.refusal = error
      this.#begin(outgoing)
    }
    backlog.add({ admit: () => this.#begin(outgoing), refuse })
  }

  /**
   * Hands a request to the app, which answers a refused one as well: with CORS headers and all else
   * that its answers carry.
   */
  #begin(outgoing: AppResponse) {
    if (hasBody(outgoing.req)) outgoing.limitBody(outgoing.req, BODY_TIMEOUT_MS)
    void this.#listener?.(outgoing.req, outgoing)
  }

  /**
   * Bytes that are no HTTP request, or not a whole one. The answer must not get into, or before,
   * another one.
   */
  #refuseBytes(error: NodeJS.ErrnoException, socket: Socket) {
    const { last, inFlight = 0, isPaused = false } = this.#connections.get(socket) ?? {}
    if (!socket.writable || error.code === 'ECONNRESET' || last?.headersSent)
      return socket.destroy()
    // The request is late because we do not read it.
    if (isPaused && error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return
    const [code, message] = CODES_OF_PARSER[error.code ?? ''] ?? [
      'bad_request',
      'This is not a valid HTTP request',
    ]
    // With one in flight whose body is broken, this is its answer. Whole ones keep theirs, and the
    // connection ends after them.
    if (!last || (inFlight === 1 && !last.req.complete))
      return socket.end(problemBytes(new AppError(code, message)))
    last.shouldKeepAlive = false
  }
}

const hasBody = ({ headers }: IncomingMessage) =>
  'transfer-encoding' in headers || 'content-length' in headers

/** What makes a request ambiguous, so that a proxy and we could disagree on where it goes. */
function flawOf({
  url = '',
  method,
  headers,
  rawHeaders,
  httpVersion,
}: IncomingMessage): AppError | undefined {
  if (!httpVersion.startsWith('1.')) return new AppError('bad_request', 'Speak HTTP/1.1')
  if (url[0] !== '/' && !(url === '*' && method === 'OPTIONS'))
    return new AppError('bad_request', 'Send a path, not an absolute URL, as the request target')
  if ((headers['transfer-encoding'] ?? 'chunked').toLowerCase() !== 'chunked')
    return new AppError(
      'bad_request',
      'Send the body chunked or with its length, in no other transfer coding',
    )
  let hosts = 0
  for (let index = 0; index < rawHeaders.length; index += 2)
    if (rawHeaders[index]?.length === 4 && rawHeaders[index]?.toLowerCase() === 'host') hosts++
  if (hosts > 1) return new AppError('bad_request', 'Send one Host header')
  // HTTP/1.0 knew none (RFC 9112, 3.2).
  if (hosts === 0 && httpVersion !== '1.0') return new AppError('bad_request', 'Send a Host header')
  return undefined
}

/** A request that cannot be turned into a `Request`: a malformed host or path. */
const refuseRequest = (error: unknown) =>
  problemResponse(
    new AppError('bad_request', error instanceof Error ? error.message : 'Malformed request'),
    '',
  )

const CODES_OF_PARSER: Record<string, [ErrorCode, string]> = {
  HPE_HEADER_OVERFLOW: ['headers_too_large', 'The headers are too large'],
  ERR_HTTP_REQUEST_TIMEOUT: ['request_timeout', 'The request did not arrive in time'],
}
