import type { Socket } from 'node:net'
import type { AppResponse } from './headers.ts'

const MAX_SERVED = 8
/** At this many the socket is paused, and does not notice a close. */
const MAX_WAITING = 1_000

/** These may run in parallel (RFC 9112, 9.3.2). */
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

const isSafe = ({ req }: AppResponse) => SAFE_METHODS.has(req.method ?? '')

/** Serves a client's pipelined requests in order; Node would start all at once. */
export class Connection {
  readonly #socket: Socket
  readonly #serve: (outgoing: AppResponse) => void
  readonly #load: { inFlight: number }
  readonly #served = new Set<AppResponse>()
  readonly #waiting: AppResponse[] = []
  #isExclusive = false
  #seenBytes = -1
  #quietSince = 0

  /** @param load of all connections. */
  constructor(socket: Socket, serve: (outgoing: AppResponse) => void, load: { inFlight: number }) {
    this.#socket = socket
    this.#serve = serve
    this.#load = load
    socket.once('close', () => process.nextTick(() => this.#abandon()))
  }

  get inFlight(): number {
    return this.#served.size + this.#waiting.length
  }

  get isPaused(): boolean {
    return this.#waiting.length >= MAX_WAITING
  }

  get last(): AppResponse | undefined {
    return this.#waiting.at(-1) ?? [...this.#served].at(-1)
  }

  receive(outgoing: AppResponse): void {
    this.#load.inFlight++
    if (this.#waiting.length === 0 && this.#mayServe(outgoing)) this.#start(outgoing)
    else if (this.#waiting.push(outgoing) === MAX_WAITING)
      this.#socket.on('resume', this.#pause).pause()
  }

  /** Closes the connection once it was idle for `quietMs`. */
  closeIfQuiet(now: number, quietMs: number): void {
    const { bytesRead } = this.#socket
    if (this.inFlight > 0 || bytesRead !== this.#seenBytes) {
      this.#seenBytes = bytesRead
      this.#quietSince = now
    } else if (now - this.#quietSince >= quietMs) this.#socket.destroySoon()
  }

  #mayServe(outgoing: AppResponse): boolean {
    const { size } = this.#served
    return size === 0 || (size < MAX_SERVED && !this.#isExclusive && isSafe(outgoing))
  }

  #start(outgoing: AppResponse) {
    this.#isExclusive = !isSafe(outgoing)
    this.#served.add(outgoing)
    outgoing.on('close', () => {
      this.#served.delete(outgoing)
      this.#load.inFlight--
      // Other connections get their turn first.
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

  /** Node resumes the socket whenever a body is read or dropped. */
  #pause = () => {
    this.#socket.pause()
  }

  /** Node emits `close` only on the response that it is writing. */
  #abandon() {
    this.#load.inFlight -= this.#waiting.length
    this.#waiting.length = 0
    for (const outgoing of this.#served) outgoing.emit('close')
  }
}
