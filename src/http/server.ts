import cluster from 'node:cluster'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { type AddressInfo, type Socket, Server as TcpServer } from 'node:net'
import { performance } from 'node:perf_hooks'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import type { Hono } from 'hono'
import { AppError, type ErrorCode, overloaded } from '../errors.ts'
import { Connection } from './connection.ts'
import type { Env } from './context.ts'
import { problemBytes, problemResponse, writeProblem } from './errors.ts'
import { AppResponse } from './headers.ts'

const HEADERS_TIMEOUT_MS = 10_000
const BODY_TIMEOUT_MS = 60_000
/** Longer than a load balancer's minute: the balancer closes first. */
const KEEP_ALIVE_TIMEOUT_MS = 65_000
const DRAIN_POLL_MS = 20
const QUIET_SHARE = 0.1
const MAX_QUIET_MS = 1_000
/** Above it, each connection may have one request. */
const MAX_IN_FLIGHT = 10_000
/** The rest is for files, probes and killing statements. */
const CLIENTS_SHARE_OF_FILES = 0.75

export interface Backlog {
  readonly waiting: number
  add(waiter: { admit: () => void; refuse: (error: AppError) => void }): void
}

interface HttpServerOptions {
  leaving: AbortSignal
  /** Other requests are served as they are (RFC 9110, 7.8). */
  shouldUpgrade?: (request: IncomingMessage) => boolean
  maxConnections?: number
  backlog?: Backlog
  backlogPaths?: readonly string[]
  /** Sends `Strict-Transport-Security`. */
  behindTls?: boolean
  findClient?: (request: IncomingMessage) => string
  clients?: ClientConnections
  /** Asked before a request waits. */
  findRefusal?: (outgoing: AppResponse) => AppError | undefined
}

interface ClientConnections {
  /** False if it is one too many, to be closed. */
  admitSocket(socket: Socket): boolean
  /** The same for clients of a proxy, which shares its sockets. */
  admitRequest(client: string, outgoing: AppResponse): boolean
}

/** The HTTP listener. Rejects what Node accepts but the app should not see. */
export class HttpServer implements AsyncDisposable {
  readonly node: Server<typeof IncomingMessage, typeof AppResponse>
  readonly #options: HttpServerOptions
  readonly #connections = new Map<Socket, Connection>()
  readonly #load = { inFlight: 0 }
  #listener: ReturnType<typeof getRequestListener> | undefined

  constructor(options: HttpServerOptions) {
    this.#options = options
    this.node = createServer({
      ServerResponse: AppResponse,
      headersTimeout: HEADERS_TIMEOUT_MS,
      // Replaced by `startBodyTimeout`, which an upload can clear.
      requestTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      requireHostHeader: false,
      // An upgraded socket may have no request in flight.
      shouldUpgradeCallback: (request) =>
        options.shouldUpgrade?.(request) === true &&
        !this.#connections.get(request.socket)?.inFlight,
    })
    this.node.maxConnections = options.maxConnections ?? Number.POSITIVE_INFINITY
    this.node.on('connection', (socket) => {
      if (options.clients?.admitSocket(socket) === false) return socket.destroy()
      this.#connections.set(socket, new Connection(socket, this.#serve, this.#load))
      socket.once('close', () => this.#connections.delete(socket))
    })
    this.node.on('upgrade', (request) => this.#connections.delete(request.socket))
    // Socket.IO wraps the listeners that exist when it is attached. `inviteBody` sends 100
    // Continue; other expectations may be ignored (RFC 9110, 10.1.1).
    for (const event of ['request', 'checkContinue', 'checkExpectation'])
      this.node.on(event, (_, outgoing) => this.#receive(outgoing))
    this.node.on('clientError', (error, socket) => this.#rejectBytes(error, socket as Socket))
  }

  get inFlight(): number {
    return this.#load.inFlight
  }

  /** Returns the URL. @throws AppError when the port is taken or not allowed. */
  async listen(app: Hono<Env>, host: string, port: number): Promise<string> {
    this.#listener = getRequestListener(app.fetch, {
      hostname: 'localhost',
      errorHandler: (error) => {
        const message = error instanceof Error ? error.message : 'Malformed request'
        return problemResponse(new AppError('bad_request', message), '')
      },
    })
    // Only Linux spreads connections over the processes of a supervisor.
    this.node.listen({ port, host, reusePort: cluster.isWorker && process.platform === 'linux' })
    await once(this.node, 'listening').catch((error) => {
      const message = listenErrorMessage(error, host, port, 'PORT')
      throw new AppError('unavailable', message, { cause: error })
    })
    this.node.on('error', () => {})
    const { address, family, port: ownPort } = this.node.address() as AddressInfo
    if (['0.0.0.0', '::', '127.0.0.1', '::1'].includes(address))
      return `http://localhost:${ownPort}`
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${ownPort}`
  }

  /**
   * Resolves when all connections are closed, or after `timeoutMs`. Idle ones close after a quiet
   * period: a request may be on its way.
   */
  async drain(timeoutMs: number): Promise<void> {
    const closed = new AbortController()
    // Otherwise waiting connections would be reset.
    await nextTurn()
    // `http.Server.close` would close every idle connection at once.
    TcpServer.prototype.close.call(this.node, () => closed.abort())
    const startedAt = performance.now()
    const quietMs = Math.min(MAX_QUIET_MS, timeoutMs * QUIET_SHARE)
    while (!closed.signal.aborted && performance.now() - startedAt < timeoutMs) {
      for (const connection of this.#connections.values())
        connection.closeIfQuiet(performance.now(), quietMs)
      await sleep(DRAIN_POLL_MS, undefined, { signal: closed.signal }).catch(() => {})
    }
  }

  async [Symbol.asyncDispose]() {
    this.node.closeAllConnections()
    await new Promise((resolve) => this.node.close(resolve))
  }

  #receive(outgoing: AppResponse) {
    const connection = this.#connections.get(outgoing.req.socket)
    outgoing.behindTls = this.#options.behindTls ?? false
    outgoing.shouldClose = () => this.#options.leaving.aborted && connection?.last === outgoing
    if (this.#load.inFlight < MAX_IN_FLIGHT || connection?.inFlight === 0)
      return connection?.receive(outgoing)
    writeProblem(outgoing, overloaded('Too many requests are in flight: try again later'))
  }

  #serve = (outgoing: AppResponse) => {
    const { req } = outgoing
    const flaw = findFlaw(req)
    if (flaw) return writeProblem(outgoing, new AppError('bad_request', flaw))
    // RFC 9110, 9.3.7.
    if (req.url === '*') return void outgoing.writeHead(204).end()
    outgoing.startedAt = performance.now()
    const { findClient, clients, backlog, backlogPaths = [], findRefusal } = this.#options
    outgoing.client = findClient?.(req) ?? req.socket.remoteAddress ?? ''
    const waits = req.method !== 'OPTIONS' && backlogPaths.some((path) => req.url?.startsWith(path))
    const start = (refusal?: AppError) => {
      outgoing.refusal = refusal
      if ('transfer-encoding' in req.headers || 'content-length' in req.headers)
        outgoing.startBodyTimeout(BODY_TIMEOUT_MS)
      void this.#listener?.(req, outgoing)
    }
    if (clients?.admitRequest(outgoing.client, outgoing) === false)
      return start(new AppError('rate_limited', TOO_MANY_OPEN, { retryAfter: 1 }))
    const refusal = waits && backlog?.waiting ? findRefusal?.(outgoing) : undefined
    if (waits && backlog && !refusal) backlog.add({ admit: () => start(), refuse: start })
    else start(refusal)
  }

  #rejectBytes(error: NodeJS.ErrnoException, socket: Socket) {
    const { last, inFlight = 0, isPaused = false } = this.#connections.get(socket) ?? {}
    if (!socket.writable || error.code === 'ECONNRESET' || last?.headersSent)
      return socket.destroy()
    // Late only because the socket is paused.
    if (isPaused && error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return
    const [code, message] = PARSER_ERRORS[error.code ?? ''] ?? [
      'bad_request',
      'This is not a valid HTTP request',
    ]
    // Complete requests are answered before the connection ends.
    if (!last || (inFlight === 1 && !last.req.complete))
      return socket.end(problemBytes(new AppError(code, message)))
    last.shouldKeepAlive = false
  }
}

const TOO_MANY_OPEN = 'You have too many requests in progress: wait for some of them'

const PARSER_ERRORS: Record<string, [ErrorCode, string]> = {
  HPE_HEADER_OVERFLOW: ['headers_too_large', 'The headers are too large'],
  ERR_HTTP_REQUEST_TIMEOUT: ['request_timeout', 'The request did not arrive in time'],
}

/** Finds what a proxy could interpret differently (request smuggling). */
function findFlaw({ url = '', method, headers, rawHeaders, httpVersion }: IncomingMessage) {
  let hosts = 0
  for (let index = 0; index < rawHeaders.length; index += 2)
    if (rawHeaders[index]?.length === 4 && rawHeaders[index]?.toLowerCase() === 'host') hosts++
  if (!httpVersion.startsWith('1.')) return 'Speak HTTP/1.1'
  if (url[0] !== '/' && !(url === '*' && method === 'OPTIONS'))
    return 'Send a path, not an absolute URL, as the request target'
  if ((headers['transfer-encoding'] ?? 'chunked').toLowerCase() !== 'chunked')
    return 'Send the body chunked or with its length, in no other transfer coding'
  if (hosts > 1) return 'Send one Host header'
  // HTTP/1.0 requires none (RFC 9112, 3.2).
  if (hosts === 0 && httpVersion !== '1.0') return 'Send a Host header'
  return undefined
}

export function listenErrorMessage(
  { code, message }: NodeJS.ErrnoException,
  host: string,
  port: number,
  setting: 'PORT' | 'OPS_PORT',
): string {
  if (code === 'EADDRINUSE')
    return `Port ${port} is in use: stop what listens there, or set ${setting} to another one`
  if (code === 'EACCES')
    return `Port ${port} is not permitted for this user: set ${setting} to one above 1023`
  return `Cannot listen on ${host}:${port}: ${message}`
}

/**
 * Leaves file descriptors for other work. Only Linux shows their limit.
 *
 * @param reserved for connections to the database.
 */
export function connectionLimit(reserved: number): number {
  if (process.platform !== 'linux') return Number.POSITIVE_INFINITY
  const limits = readFileSync('/proc/self/limits', 'utf8')
  const [, limit = Number.POSITIVE_INFINITY] = limits.match(/^Max open files\s+(\d+)/m) ?? []
  const free = Number(limit) - readdirSync('/proc/self/fd').length - reserved
  return Math.max(1, Math.floor(free * CLIENTS_SHARE_OF_FILES))
}
