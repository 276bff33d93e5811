import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server as NodeServer } from 'node:http'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { z } from '@hono/zod-openapi'
import { Server, type Socket } from 'socket.io'
import type { Access, Subject } from '../roles.ts'
import type { Event } from './event.ts'
import type { Relay, RelayedEvent } from './relay.ts'

const PATH = '/socket.io/'
const MAX_MESSAGE_BYTES = 16 * 1024
/** A client with more unread bytes is disconnected. */
const MAX_BUFFERED_BYTES = 1024 * 1024
/** A client with more misses what is superseded anyway. */
const MAX_LATEST_BYTES = 64 * 1024
const MAX_TOPIC_LENGTH = 100
/** Per client, because a pattern matches any number of topics. */
const MAX_TOPICS = 100
const CLOSE_TIMEOUT_MS = 1_000
const CLOSE_POLL_MS = 10
const EXPIRY_CHECK_MS = 500

export interface ClientEvents {
  subscribe: (topic: string, acknowledge?: (answer: Acknowledgement) => void) => void
  unsubscribe: (topic: string, acknowledge?: (answer: Acknowledgement) => void) => void
}

type Refusal = {
  ok: false
  code: 'not_found' | 'invalid' | 'too_many' | 'unauthenticated' | 'forbidden' | 'unavailable'
  message: string
}

export type Acknowledgement = { ok: true } | Refusal

export interface Topic {
  /** A name or a pattern, whose flag `i` makes one topic of any case. */
  name: string | RegExp
  access: Access
  /** Whether a subject with the scope may read this topic of a pattern. */
  allows?: ((subject: Subject, topic: string) => Promise<boolean>) | undefined
}

interface RealtimeOptions {
  /** Absent if the process has no clients. */
  server?: NodeServer
  topics: readonly Topic[]
  /** To other processes. */
  relay?: Relay | undefined
  /** Whose pages may connect, besides our own. */
  corsOrigins: readonly string[]
  admit?: (request: IncomingMessage) => boolean
  /** @param token of `io(url, { auth: { token } })`. @throws AppError for an unknown token. */
  identify?: (request: IncomingMessage, token: unknown) => Promise<Subject | undefined>
  /** Returns what to call afterwards. */
  onPublish?: ((topic: string, event: string) => (() => void) | undefined) | undefined
}

interface SocketData {
  subject?: Subject | undefined
}

type Reach = 'all' | 'local'

type ServerEvents = Record<string, (payload?: unknown) => void>
type Io = Server<ClientEvents, ServerEvents, ServerEvents, SocketData>
type ClientSocket = Socket<ClientEvents, ServerEvents, ServerEvents, SocketData>
type Connection = Socket['conn']

/** Pushes events to clients over Socket.IO, websocket only. */
export class Realtime implements AsyncDisposable {
  readonly #io: Io
  readonly #topics: readonly Topic[]
  readonly #relay: Relay | undefined
  readonly #onPublish: RealtimeOptions['onPublish']
  readonly #expiry: NodeJS.Timeout
  /** With the bytes in Socket.IO's own buffer. */
  readonly #connections = new Map<Connection, number>()
  readonly #listeners = new EventEmitter().setMaxListeners(0)
  readonly #relayListeners = new Set<(event: RelayedEvent) => void>()
  /** Each ends an event stream. */
  readonly #streams = new Map<() => void, Subject>()
  #closing = false

  constructor(options: RealtimeOptions) {
    this.#topics = options.topics
    this.#relay = options.relay
    this.#onPublish = options.onPublish
    this.#io = new Server({
      path: PATH,
      transports: ['websocket'],
      serveClient: false,
      maxHttpBufferSize: MAX_MESSAGE_BYTES,
      allowRequest: (request, decide) =>
        decide(
          null,
          !this.#closing &&
            isAllowedOrigin(request, options.corsOrigins) &&
            options.admit?.(request) !== false,
        ),
    })
    if (options.server) {
      this.#io.attach(options.server)
      this.#io.engine.on('connection', (connection: Connection) => this.#limit(connection))
    }
    this.#io.use((socket, next) => {
      const { token } = socket.handshake.auth
      void (options.identify?.(socket.request, token) ?? Promise.resolve(undefined)).then(
        (subject) => {
          socket.data.subject = subject
          next()
        },
        next,
      )
    })
    this.#io.on('connection', (socket) => this.#serve(socket))
    this.#expiry = setInterval(() => this.#disconnectExpired(), EXPIRY_CHECK_MS).unref()
    if (!options.relay) return
    for (const change of ['create-room', 'delete-room'])
      this.#io.of('/').adapter.on(change, (room: string) => this.#updateRelay(room))
    options.relay.open({
      receive: (event) => this.#receive(event),
      resync: () => this.#io.emit('server.resync'),
    })
  }

  get connections(): number {
    return this.#connections.size
  }

  get #rooms() {
    return this.#io.of('/').adapter.rooms
  }

  /** Publishes to `topic`. Call it after the commit that the event reports. */
  emit<E extends Event>(
    topic: string,
    { name }: E,
    payload: z.infer<E['payload']>,
    reach: Reach = 'all',
  ): void {
    this.#publish({ topic, name, payload, latest: false }, reach)
  }

  /**
   * Like `emit`, but the next value supersedes it: dropped for slow clients, and processes without
   * subscribers.
   */
  emitLatest<E extends Event>(
    topic: string,
    { name }: E,
    payload: z.infer<E['payload']>,
    reach: Reach = 'all',
  ): void {
    this.#publish({ topic, name, payload, latest: true }, reach)
  }

  /** Subscribes code of this process. */
  listen(topic: string, listener: (name: string, payload: unknown) => void): () => void {
    this.#listeners.on(topic, listener)
    this.#updateRelay(topic)
    return () => {
      this.#listeners.off(topic, listener)
      this.#updateRelay(topic)
    }
  }

  /** Subscribes to what other processes publish to topics with subscribers here. */
  onRelayed(listener: (event: RelayedEvent) => void): () => void {
    this.#relayListeners.add(listener)
    return () => this.#relayListeners.delete(listener)
  }

  get isRelaying(): boolean {
    return this.#relay?.isReady === true
  }

  /** In any process. */
  hasSubscribers(topic: string): boolean {
    return this.#hasLocal(topic) || this.#relay?.hasSubscribers(topic) === true
  }

  /** The topics with subscribers in this process. */
  subscribed(pattern: RegExp): string[] {
    const topics = new Set([...this.#rooms.keys(), ...(this.#listeners.eventNames() as string[])])
    return [...topics].filter((topic) => pattern.test(topic))
  }

  get subjects(): Subject[] {
    const sockets = [...this.#io.of('/').sockets.values()]
    return [...sockets.flatMap(({ data }) => data.subject ?? []), ...this.#streams.values()]
  }

  disconnect(credentialId: string): void {
    this.#io.in(toRoom(credentialId)).disconnectSockets(true)
    for (const [end, { credential }] of this.#streams) if (credential.id === credentialId) end()
  }

  /** Calls `end` when the session or API key of `subject` is revoked or has expired. */
  onSignOut(subject: Subject | undefined, end: () => void): () => void {
    if (subject) this.#streams.set(end, subject)
    return () => this.#streams.delete(end)
  }

  /** Tells clients to connect elsewhere, and closes within 1 s. */
  async [Symbol.asyncDispose]() {
    this.#closing = true
    clearInterval(this.#expiry)
    this.#io.emit('server.stopping')
    for (const connection of this.#connections.keys()) connection.close()
    const deadline = performance.now() + CLOSE_TIMEOUT_MS
    while (this.#connections.size > 0 && performance.now() < deadline) await sleep(CLOSE_POLL_MS)
    for (const connection of this.#connections.keys()) terminate(connection)
  }

  #publish(event: RelayedEvent, reach: Reach) {
    const onEnd = this.#onPublish?.(event.topic, event.name)
    this.#deliver(event)
    if (reach === 'all') this.#relayToOthers(event)
    onEnd?.()
  }

  #relayToOthers(event: RelayedEvent) {
    if (!this.#relay) return
    if (!event.latest || this.#relay.hasSubscribers(event.topic)) this.#relay.publish(event)
  }

  #receive(event: RelayedEvent) {
    this.#deliver(event)
    for (const listener of this.#relayListeners) listener(event)
  }

  #deliver({ topic, name, payload, latest }: RelayedEvent) {
    if (this.#listeners.listenerCount(topic) > 0) this.#listeners.emit(topic, name, payload)
    // Socket.IO would encode it without recipients, too.
    if (!this.#rooms.has(topic)) return
    const clients = this.#io.to(topic)
    // Socket.IO's `volatile` would drop the second of two events at once for all clients.
    if (latest) clients.except(this.#listSlow(topic)).emit(name, payload)
    else clients.emit(name, payload)
  }

  #listSlow(topic: string): string[] {
    const { sockets } = this.#io.of('/')
    return [...(this.#rooms.get(topic) ?? [])].filter((id) => {
      const connection = sockets.get(id)?.conn
      return connection && this.#countUnread(connection) > MAX_LATEST_BYTES
    })
  }

  #countUnread(connection: Connection): number {
    return (this.#connections.get(connection) ?? 0) + toWebsocket(connection).bufferedAmount
  }

  #hasLocal(topic: string): boolean {
    return this.#rooms.has(topic) || this.#listeners.listenerCount(topic) > 0
  }

  /** Not all rooms are topics. */
  #updateRelay(room: string) {
    if (this.#relay && 'name' in this.#findTopic(room))
      this.#relay.follow(room, this.#hasLocal(room))
  }

  /** Socket.IO and `ws` do not bound a client's unread bytes. */
  #limit(connection: Connection) {
    this.#connections.set(connection, 0)
    // Engine.IO's own `close` comes too early.
    toWebsocket(connection).once('close', () => this.#connections.delete(connection))
    connection.on('packetCreate', ({ data }: { data?: string | Buffer }) => {
      const waiting = this.#connections.get(connection)
      if (waiting === undefined) return
      this.#connections.set(connection, waiting + (data?.length ?? 0))
      if (this.#countUnread(connection) > MAX_BUFFERED_BYTES) terminate(connection)
    })
    connection.on('drain', () => {
      if (this.#connections.has(connection)) this.#connections.set(connection, 0)
    })
  }

  #serve(socket: ClientSocket) {
    const { subject } = socket.data
    if (subject) socket.join(toRoom(subject.credential.id))
    // An `unsubscribe` must not overtake a `subscribe` that asks the database.
    let turn = Promise.resolve()
    // Without a topic, the acknowledgement is the first argument.
    socket.on('subscribe', (topic, acknowledge: unknown = topic) => {
      turn = turn.then(async () => reply(acknowledge, await this.#subscribe(socket, topic)))
    })
    socket.on('unsubscribe', (topic, acknowledge: unknown = topic) => {
      turn = turn.then(() => {
        const found = this.#findTopic(topic)
        if ('name' in found) socket.leave(found.name)
        reply(acknowledge, 'name' in found ? { ok: true } : found)
      })
    })
  }

  async #subscribe(socket: ClientSocket, topic: unknown): Promise<Acknowledgement> {
    const found = this.#findTopic(topic)
    if (!('name' in found)) return found
    const { name, access, allows } = found
    const { subject } = socket.data
    if (access !== 'public' && !subject?.scopes.has(access)) return subject ? FORBIDDEN : UNKNOWN
    if (allows) {
      const isAllowed = subject && (await allows(subject, name).catch(() => undefined))
      if (isAllowed === undefined) return UNAVAILABLE
      if (!isAllowed) return missing(name)
    }
    if (isFull(socket, name)) return TOO_MANY
    socket.join(name)
    // Who reads afterwards misses no event of another process.
    await this.#relay?.following()
    return { ok: true }
  }

  #disconnectExpired() {
    for (const { data, conn } of this.#io.of('/').sockets.values())
      if (data.subject && data.subject.expiresAt <= Date.now()) conn.close()
    for (const [end, { expiresAt }] of this.#streams) if (expiresAt <= Date.now()) end()
  }

  #findTopic(topic: unknown): (Topic & { name: string }) | Refusal {
    if (typeof topic !== 'string' || topic.length > MAX_TOPIC_LENGTH) return INVALID
    const found = this.#topics.find(({ name }) =>
      typeof name === 'string' ? name === topic : name.test(topic),
    )
    if (found === undefined) return missing(topic)
    const ignoreCase = typeof found.name !== 'string' && found.name.ignoreCase
    return { ...found, name: ignoreCase ? topic.toLowerCase() : topic }
  }
}

const toRoom = (credentialId: string) => `credential:${credentialId}`

const missing = (topic: string): Refusal => ({
  ok: false,
  code: 'not_found',
  message: `There is no topic ${topic}`,
})

const INVALID: Refusal = {
  ok: false,
  code: 'invalid',
  message: `A topic is a string of at most ${MAX_TOPIC_LENGTH} characters`,
}

const TOO_MANY: Refusal = {
  ok: false,
  code: 'too_many',
  message: `A client may subscribe to at most ${MAX_TOPICS} topics: unsubscribe from one first`,
}

const UNKNOWN: Refusal = {
  ok: false,
  code: 'unauthenticated',
  message: 'Sign in, or connect with an API key: io(url, { auth: { token } })',
}

const FORBIDDEN: Refusal = { ok: false, code: 'forbidden', message: 'You may not read this topic' }

const UNAVAILABLE: Refusal = {
  ok: false,
  code: 'unavailable',
  message: 'The database does not answer: try again later',
}

/** A socket is also in rooms of its own and of its credential. */
const isFull = ({ rooms, data }: ClientSocket, topic: string) =>
  !rooms.has(topic) && rooms.size - (data.subject ? 2 : 1) >= MAX_TOPICS

function reply(acknowledge: unknown, answer: Acknowledgement) {
  if (typeof acknowledge === 'function') acknowledge(answer)
}

/** The only upgrade accepted. */
export const isRealtimeUpgrade = ({ method, url, headers }: IncomingMessage): boolean =>
  method === 'GET' &&
  url?.startsWith(PATH) === true &&
  headers.upgrade?.toLowerCase() === 'websocket'

/** CORS does not cover websockets. */
function isAllowedOrigin(
  { headers: { origin, host } }: IncomingMessage,
  corsOrigins: readonly string[],
) {
  if (!origin || isOwnOrigin(origin, host)) return true
  return corsOrigins.includes(URL.parse(origin)?.origin ?? '')
}

/** Case and default ports make no difference (RFC 6454); extensions have no host. */
export function isOwnOrigin(origin: string, host: string | undefined): boolean {
  const url = URL.parse(origin)
  if (!url || !/^https?:$/.test(url.protocol)) return false
  // A proxy may end TLS, so our own scheme is unknown: the origin's is assumed.
  return URL.parse(`${url.protocol}//${host}`)?.origin === url.origin
}

interface Websocket {
  bufferedAmount: number
  once(event: 'close', listener: () => void): void
  terminate(): void
}

/** Engine.IO hides it. */
const toWebsocket = ({ transport }: Connection) =>
  (transport as unknown as { socket: Websocket }).socket

/** A regular close would wait for the client. */
const terminate = (connection: Connection) => toWebsocket(connection).terminate()
