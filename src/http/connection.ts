import type { Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { AppResponse } from './response.ts'

/** How many safe requests of one connection are served at once. */
const MAX_SERVED = 8
/**
 * With so many that wait, the socket is not read. Before that it is, because only who reads hears
 * that the client leaves.
 */
const MAX_WAITING = 1_000

/** Methods that change nothing, so that their requests may run in parallel (RFC 9112, 9.3.2). */
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** What all connections together have to do. */
export interface Load {
  inFlight: number
}

/**
 * One client's connection and its requests in flight. Node dispatches every request that one read
 * brings: a client that pipelines a thousand of them would start all at once. Here they are served
 * in their order, a few at a time and an unsafe one alone; the others wait without any work done
 * for them.
 */
export class Connection {
  readonly #socket: Socket
  readonly #serve: (outgoing: AppResponse) => void
  readonly #load: Load
  readonly #served = new Set<AppResponse>()
  readonly #waiting: AppResponse[] = []
  /** Whether what is served is an unsafe request, which nothing else may overtake or join. */
  #isExclusive = false
  #seenBytes = 0
  #quietSince = performance.now()

  /** @param load counts the requests in flight of all connections. */
  constructor(socket: Socket, serve: (outgoing: AppResponse) => void, load: Load) {
    this.#socket = socket
    this.#serve = serve
    this.#load = load
    socket.once('close', () => process.nextTick(() => this.#abandon()))
  }

  /** How many requests have no complete answer yet. */
  get inFlight(): number {
    return this.#served.size + this.#waiting.length
  }

  /** Whether the server does not read from it because too many requests wait. */
  get isPaused(): boolean {
    return this.#waiting.length >= MAX_WAITING
  }

  /** The answer that will be sent last, of those in flight. */
  get last(): AppResponse | undefined {
    return this.#waiting.at(-1) ?? [...this.#served].at(-1)
  }

  /** Serves a request, now or when those before it have their answers. */
  receive(outgoing: AppResponse): void {
    this.#load.inFlight++
    if (this.#waiting.length === 0 && this.#mayServe(outgoing)) this.#start(outgoing)
    else if (this.#waiting.push(outgoing) === MAX_WAITING)
      this.#socket.on('resume', this.#pause).pause()
  }

  /**
   * Closes the connection if it has no request in flight and has sent nothing for `graceMs`. A
   * connection that is in use sends its next request within that time, and the answer asks the
   * client to close.
   */
  closeIfQuiet(now: number, graceMs: number): void {
    const { bytesRead } = this.#socket
    if (this.inFlight > 0 || bytesRead !== this.#seenBytes) {
      this.#seenBytes = bytesRead
      this.#quietSince = now
    } else if (now - this.#quietSince >= graceMs) this.#socket.destroySoon()
  }

  /** `closeIfQuiet` counts from here. */
  watch(now: number): void {
    this.#quietSince = now
  }

  #mayServe({ req }: AppResponse): boolean {
    if (this.#served.size === 0) return true
    return (
      this.#served.size < MAX_SERVED && !this.#isExclusive && SAFE_METHODS.has(req.method ?? '')
    )
  }

  #start(outgoing: AppResponse) {
    this.#isExclusive = !SAFE_METHODS.has(outgoing.req.method ?? '')
    this.#served.add(outgoing)
    outgoing.on('close', () => {
      this.#served.delete(outgoing)
      this.#load.inFlight--
      // In a turn of its own, so that other connections' requests come in between.
      if (this.#waiting.length > 0) setImmediate(this.#serveWaiting)
    })
    this.#serve(outgoing)
  }

  #serveWaiting = () => {
    const wasPaused = this.isPaused
    while (this.#waiting[0] && this.#mayServe(this.#waiting[0]))
      this.#start(this.#waiting.shift() as AppResponse)
    if (wasPaused && !this.isPaused) this.#socket.off('resume', this.#pause).resume()
  }

  /** Node resumes a socket whenever a request's body is read or dropped. */
  #pause = () => {
    this.#socket.pause()
  }

  /**
   * Node closes the one response that it is writing when a connection is lost: those behind it
   * would never hear of it.
   */
  #abandon() {
    this.#load.inFlight -= this.#waiting.length
    this.#waiting.length = 0
    for (const outgoing of this.#served) outgoing.emit('close')
  }
}
