import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server as NodeServer } from 'node:http'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { z } from '@hono/zod-openapi'
import { Server, type Socket } from 'socket.io'
import type { Event } from './event.ts'

const PATH = '/socket.io/'
const MAX_MESSAGE_BYTES = 16 * 1024
/**
 * What may wait for one slow reader; then it is disconnected, and reads the truth again when it
 * comes back.
 */
const MAX_BUFFERED_BYTES = 1024 * 1024
const MAX_TOPIC_LENGTH = 100
/** For each client: topics may be patterns, and then there is no end to them. */
const MAX_TOPICS = 100
/** What clients get to take the goodbye and close. */
const CLOSE_TIMEOUT_MS = 1_000
const CLOSE_POLL_MS = 10

/** How the server answers `subscribe` and `unsubscribe`. */
export type Acknowledgement =
  | { ok: true }
  | { ok: false; code: 'not_found' | 'invalid' | 'too_many'; message: string }

/** What a client may send. */
export interface ClientEvents {
  subscribe: (topic: string, acknowledge?: (answer: Acknowledgement) => void) => void
  unsubscribe: (topic: string, acknowledge?: (answer: Acknowledgement) => void) => void
}

const TOO_MANY: Acknowledgement = {
  ok: false,
  code: 'too_many',
  message: `A client may subscribe to at most ${MAX_TOPICS} topics: unsubscribe from one first`,
}

/** Engine.IO's end of a connection. */
type Connection = Socket['conn']

export interface RealtimeOptions {
  /**
   * Which topics exist; a string, or a pattern such as /^report:\d+$/, where the flag `i` makes one
   * topic of any case.
   */
  topics: readonly (string | RegExp)[]
  /**
   * Pages from these origins may connect; a page of our own and clients that are no browser always
   * may.
   */
  corsOrigins: readonly string[]
}

/**
 * Push to browsers over Socket.IO, websocket only. An event is a hint: the truth is read by HTTP.
 */
export class Realtime implements AsyncDisposable {
  readonly #io: Server<ClientEvents, Record<string, (payload?: unknown) => void>>
  readonly #topics: RealtimeOptions['topics']
  readonly #connections = new Set<Connection>()
  readonly #listeners = new EventEmitter().setMaxListeners(0)
  #closing = false

  constructor(server: NodeServer, { topics, corsOrigins }: RealtimeOptions) {
    this.#topics = topics
    this.#io = new Server(server, {
      path: PATH,
      transports: ['websocket'],
      serveClient: false,
      maxHttpBufferSize: MAX_MESSAGE_BYTES,
      allowRequest: (request, decide) =>
        decide(null, !this.#closing && isAllowedOrigin(request, corsOrigins)),
    })
    this.#io.engine.on('connection', (connection: Connection) => this.#keep(connection))
    this.#io.on('connection', (socket) => this.#serve(socket))
  }

  /** How many clients are connected. */
  get connections(): number {
    return this.#connections.size
  }

  /** Tells everyone who subscribed to `topic`. Call it after the commit that it tells of. */
  emit<Schema extends z.ZodObject>(
    topic: string,
    { name }: Event<string, Schema>,
    payload: z.infer<Schema>,
  ): void {
    if (this.#listeners.listenerCount(topic) > 0) this.#listeners.emit(topic, name, payload)
    // Socket.IO encodes a message before it looks whether anybody is there to get it.
    if (this.#rooms.has(topic)) this.#io.to(topic).emit(name, payload)
  }

  /**
   * The same for news that the next one outdates: a reader who is behind misses it, so that nothing
   * piles up for him.
   */
  emitLatest<Schema extends z.ZodObject>(
    topic: string,
    { name }: Event<string, Schema>,
    payload: z.infer<Schema>,
  ): void {
    if (this.#listeners.listenerCount(topic) > 0) this.#listeners.emit(topic, name, payload)
    this.#io.to(topic).volatile.emit(name, payload)
  }

  /**
   * Subscribes code of this process, such as a stream of Server-Sent Events, to what it publishes
   * to `topic`. Returns the function that unsubscribes.
   */
  listen(topic: string, listener: (name: string, payload: unknown) => void): () => void {
    this.#listeners.on(topic, listener)
    return () => this.#listeners.off(topic, listener)
  }

  /** Whether anybody is subscribed to `topic`; costs next to nothing. */
  hasSubscribers(topic: string): boolean {
    return this.#rooms.has(topic) || this.#listeners.listenerCount(topic) > 0
  }

  /** The topics of a kind that have subscribers. */
  subscribed(pattern: RegExp): string[] {
    const topics = new Set([...this.#rooms.keys(), ...(this.#listeners.eventNames() as string[])])
    return [...topics].filter((topic) => pattern.test(topic))
  }

  get #rooms() {
    return this.#io.of('/').adapter.rooms
  }

  /**
   * Tells every client that the server stops, so that it connects elsewhere, and closes the
   * connections within 1 s.
   */
  async [Symbol.asyncDispose]() {
    this.#closing = true
    this.#io.emit('server.stopping')
    for (const connection of this.#connections) connection.close()
    const deadline = performance.now() + CLOSE_TIMEOUT_MS
    while (this.#connections.size > 0 && performance.now() < deadline) await sleep(CLOSE_POLL_MS)
    for (const connection of this.#connections) terminate(connection)
  }

  /** Counts what waits for a reader on our side: neither Socket.IO nor `ws` sets a bound to it. */
  #keep(connection: Connection) {
    this.#connections.add(connection)
    // Engine.IO forgets a connection when it says goodbye; this is when it is gone.
    websocketOf(connection).once('close', () => this.#connections.delete(connection))
    let waiting = 0
    connection.on('packetCreate', ({ data }: { data?: string | Buffer }) => {
      waiting += data?.length ?? 0
      if (waiting + websocketOf(connection).bufferedAmount > MAX_BUFFERED_BYTES)
        terminate(connection)
    })
    connection.on('drain', () => {
      waiting = 0
    })
  }

  #serve(socket: Socket<ClientEvents>) {
    // A client that leaves out the topic sends its acknowledgement in its place.
    socket.on('subscribe', (topic, acknowledge: unknown = topic) => {
      const found = this.#find(topic)
      const answer = found.ok && isFull(socket, found.topic) ? TOO_MANY : found
      if (found.ok && answer.ok) socket.join(found.topic)
      reply(acknowledge, answer)
    })
    socket.on('unsubscribe', (topic, acknowledge: unknown = topic) => {
      const found = this.#find(topic)
      if (found.ok) socket.leave(found.topic)
      reply(acknowledge, found)
    })
  }

  /** Clients send what they like: nothing about a topic is known before this. */
  #find(topic: unknown): Found {
    if (typeof topic !== 'string' || topic.length > MAX_TOPIC_LENGTH)
      return {
        ok: false,
        code: 'invalid',
        message: `A topic is a string of at most ${MAX_TOPIC_LENGTH} characters`,
      }
    const found = this.#topics.find((known) =>
      typeof known === 'string' ? known === topic : known.test(topic),
    )
    if (found === undefined)
      return { ok: false, code: 'not_found', message: `There is no topic ${topic}` }
    return {
      ok: true,
      topic: typeof found !== 'string' && found.ignoreCase ? topic.toLowerCase() : topic,
    }
  }
}

/** The topic that a client means, or why it gets none. */
type Found = { ok: true; topic: string } | Extract<Acknowledgement, { ok: false }>

/** Socket.IO puts each socket into a room of its own besides. */
const isFull = ({ rooms }: Socket, topic: string) => !rooms.has(topic) && rooms.size > MAX_TOPICS

function reply(acknowledge: unknown, answer: Acknowledgement) {
  if (typeof acknowledge === 'function') acknowledge(answer.ok ? { ok: true } : answer)
}

/** Whether a request offers the one upgrade that is accepted: a websocket for Socket.IO. */
export const isRealtimeUpgrade = ({ method, url, headers }: IncomingMessage): boolean =>
  method === 'GET' &&
  url?.startsWith(PATH) === true &&
  headers.upgrade?.toLowerCase() === 'websocket'

/**
 * Browsers let any page open a websocket to anywhere: CORS does not apply, so the origin is checked
 * here. Whether it is ours is judged by RFC 6454: neither the case of a host's letters nor a
 * default port makes another origin.
 */
function isAllowedOrigin(
  { headers: { origin, host } }: IncomingMessage,
  corsOrigins: readonly string[],
) {
  if (!origin) return true
  if (!URL.canParse(origin)) return false
  const url = new URL(origin)
  // The scheme that the page was loaded by is not known here where a proxy ends TLS: the origin's
  // own is taken.
  const own = `${url.protocol}//${host}`
  return (
    corsOrigins.includes(url.origin) || (URL.canParse(own) && new URL(own).origin === url.origin)
  )
}

interface Websocket {
  bufferedAmount: number
  once(event: 'close', listener: () => void): void
  terminate(): void
}

/** The `ws` socket under a connection, which Engine.IO does not show. */
const websocketOf = ({ transport }: Connection) =>
  (transport as unknown as { socket: Websocket }).socket

/** At once: a polite close waits for a reader that does not read. */
const terminate = (connection: Connection) => websocketOf(connection).terminate()
