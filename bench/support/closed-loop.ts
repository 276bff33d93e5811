import { connect, type Socket } from 'node:net'
import { percentile } from './statistics.ts'

/** What a client sends, and from where. */
export interface Target {
  /** Of the server: `http://127.0.0.1:3000`. */
  url: string
  /** The next request, whole: `GET /v1/products/7`, headers and body included. */
  nextRequest: () => string
  /** The client's own address: all of 127.0.0.0/8 is this machine. */
  localAddress?: string
}

/** What so many clients got while it was counted. */
export interface LoopFigures {
  /** All of them, whatever their status. */
  answers: number
  /** Answers of 2xx per second. */
  goodPerSecond: number
  /** How many of all answers were 503, from 0 to 1. */
  refusedShare: number
  /** Of the 2xx. */
  p50Ms: number
  p99Ms: number
  /** How many clients got a 2xx at all. */
  clientsServed: number
  /**
   * What else came: other statuses and broken connections, with their numbers. Empty when all is
   * well.
   */
  failures: Record<string, number>
}

const END_OF_HEAD = '\r\n\r\n'
const CONTENT_LENGTH = /\r\ncontent-length: *(\d+)/i
const RECONNECT_AFTER_MS = 100

/**
 * So many clients with a connection each that send their next request as soon as the last one is
 * answered. autocannon does the same, but takes three times the processor time for each, of the
 * cores that the database needs.
 */
export class ClosedLoop {
  readonly #clients: Client[]
  #good: number[] = []
  #served = new Set<Client>()
  #answers = 0
  #refused = 0
  #failures: Record<string, number> = {}
  #since = 0

  constructor(target: Target, connections: number) {
    const onAnswer = (client: Client, status: number, ms: number) => this.#count(client, status, ms)
    this.#clients = Array.from(
      { length: connections },
      () => new Client(target, onAnswer, (what) => this.#fail(what)),
    )
  }

  /** From here on it counts. */
  begin() {
    this.#good = []
    this.#served.clear()
    this.#answers = 0
    this.#refused = 0
    this.#failures = {}
    this.#since = performance.now()
  }

  /** Ends the counting and the load. */
  end(): LoopFigures {
    const seconds = (performance.now() - this.#since) / 1_000
    for (const client of this.#clients) client.stop()
    const good = this.#good
    return {
      answers: this.#answers,
      goodPerSecond: good.length / seconds,
      refusedShare: this.#refused / Math.max(1, this.#answers),
      p50Ms: percentile(good, 0.5),
      p99Ms: percentile(good, 0.99),
      clientsServed: this.#served.size,
      failures: this.#failures,
    }
  }

  #count(client: Client, status: number, ms: number) {
    this.#answers++
    if (status === 503) this.#refused++
    else if (status < 200 || status > 299) this.#fail(String(status))
    else {
      this.#good.push(ms)
      this.#served.add(client)
    }
  }

  #fail(what: string) {
    this.#failures[what] = (this.#failures[what] ?? 0) + 1
  }
}

type OnAnswer = (client: Client, status: number, ms: number) => void

/** One connection. It reads no more of an answer than its status and its length. */
class Client {
  readonly #target: Target
  readonly #onAnswer: OnAnswer
  readonly #onFailure: (what: string) => void
  #socket: Socket
  #stopped = false
  #sentAt = 0
  #received = ''

  constructor(target: Target, onAnswer: OnAnswer, onFailure: (what: string) => void) {
    this.#target = target
    this.#onAnswer = onAnswer
    this.#onFailure = onFailure
    this.#socket = this.#connect()
  }

  stop() {
    this.#stopped = true
    this.#socket.destroy()
  }

  #connect(): Socket {
    const { url, localAddress } = this.#target
    const { hostname, port } = new URL(url)
    const socket = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      ...(localAddress && { localAddress }),
    })
    this.#received = ''
    // A character for each byte, so that lengths are right.
    socket.setEncoding('latin1')
    socket.on('connect', () => this.#send())
    socket.on('data', (text: string) => this.#read(text))
    socket.on('error', () => {})
    socket.on('close', () => this.#reconnect())
    return socket
  }

  #reconnect() {
    if (this.#stopped) return
    this.#onFailure('connection closed')
    setTimeout(() => {
      if (!this.#stopped) this.#socket = this.#connect()
    }, RECONNECT_AFTER_MS)
  }

  #send() {
    this.#sentAt = performance.now()
    this.#socket.write(this.#target.nextRequest(), 'latin1')
  }

  #read(text: string) {
    this.#received += text
    const headEnd = this.#received.indexOf(END_OF_HEAD)
    if (headEnd < 0) return
    const length = Number(CONTENT_LENGTH.exec(this.#received)?.[1])
    if (Number.isNaN(length))
      throw new Error(
        `Expected an answer with a Content-Length, got ${this.#received.slice(0, headEnd)}`,
      )
    if (this.#received.length < headEnd + END_OF_HEAD.length + length) return
    const status = Number(this.#received.slice(9, 12))
    this.#received = ''
    this.#onAnswer(this, status, performance.now() - this.#sentAt)
    this.#send()
  }
}
