import type { IncomingMessage, Server as NodeServer } from 'node:http'
import { Server, type Socket } from 'socket.io'
import type { Event } from '../names.ts'

const MAX_MESSAGE_BYTES = 16 * 1024
/** What may wait for one slow reader; then it is disconnected, and reads the truth again when it comes back. */
const MAX_BUFFERED_BYTES = 1024 * 1024
const MAX_TOPIC_LENGTH = 100

/** How the server answers `subscribe` and `unsubscribe`. */
export type Acknowledgement = { ok: true } | { ok: false; code: 'not_found' | 'invalid'; message: string }

/** What a client may send. */
export interface ClientEvents {
  subscribe: (topic: string, acknowledge?: (answer: Acknowledgement) => void) => void
  unsubscribe: (topic: string, acknowledge?: (answer: Acknowledgement) => void) => void
}

export interface RealtimeOptions {
  /** Which topics exist; a string, or a pattern such as /^report:\d+$/. */
  topics: readonly (string | RegExp)[]
  /** Pages from these origins may connect; a page of our own and clients that are no browser always may. */
  corsOrigins: readonly string[]
}

/** Push to browsers over Socket.IO, websocket only. An event is a hint: the truth is read by HTTP. */
export class Realtime implements AsyncDisposable {
  readonly #io: Server<ClientEvents, Record<string, (payload: unknown) => void>>
  readonly #topics: RealtimeOptions['topics']

  constructor(server: NodeServer, { topics, corsOrigins }: RealtimeOptions) {
    this.#topics = topics
    this.#io = new Server(server, {
      transports: ['websocket'],
      serveClient: false,
      maxHttpBufferSize: MAX_MESSAGE_BYTES,
      allowRequest: (request, decide) => decide(null, isAllowedOrigin(request, corsOrigins)),
    })
    this.#io.on('connection', (socket) => this.#serve(socket))
  }

  /** How many clients are connected. */
  get connections(): number {
    return this.#io.engine.clientsCount
  }

  /** Tells everyone who subscribed to `topic`. Call it after the commit that it tells of. */
  emit<Name extends string, Payload>(topic: string, { name }: Event<Name, Payload>, payload: Payload): void {
    this.#dropSlowReaders(topic)
    this.#io.to(topic).emit(name, payload)
  }

  /** Tells every client that the server stops, so that it connects elsewhere, and closes the connections. */
  async [Symbol.asyncDispose]() {
    this.#io.emit('server.stopping', {})
    for (const socket of this.#io.sockets.sockets.values()) socket.conn.close()
    this.#io.engine.close()
  }

  #serve(socket: Socket<ClientEvents>) {
    socket.on('subscribe', (topic, acknowledge) => {
      const answer = this.#check(topic)
      if (answer.ok) socket.join(topic)
      reply(acknowledge, answer)
    })
    socket.on('unsubscribe', (topic, acknowledge) => {
      const answer = this.#check(topic)
      if (answer.ok) socket.leave(topic)
      reply(acknowledge, answer)
    })
  }

  /** Clients send what they like: nothing about a topic is known before this. */
  #check(topic: unknown): Acknowledgement {
    if (typeof topic !== 'string' || topic.length > MAX_TOPIC_LENGTH)
      return { ok: false, code: 'invalid', message: `A topic is a string of at most ${MAX_TOPIC_LENGTH} characters` }
    if (this.#topics.some((known) => (typeof known === 'string' ? known === topic : known.test(topic)))) return { ok: true }
    return { ok: false, code: 'not_found', message: `There is no topic ${topic}` }
  }

  #dropSlowReaders(topic: string) {
    for (const id of this.#io.sockets.adapter.rooms.get(topic) ?? []) {
      const socket = this.#io.sockets.sockets.get(id)
      if (socket && bufferedBytes(socket) > MAX_BUFFERED_BYTES) socket.conn.transport.close()
    }
  }
}

function reply(acknowledge: unknown, answer: Acknowledgement) {
  if (typeof acknowledge === 'function') acknowledge(answer)
}

/** Browsers let any page open a websocket to anywhere: CORS does not apply, so the origin is checked here. */
function isAllowedOrigin({ headers }: IncomingMessage, corsOrigins: readonly string[]) {
  const { origin, host } = headers
  return !origin || corsOrigins.includes(origin) || (URL.canParse(origin) && new URL(origin).host === host)
}

/** What the kernel has not taken yet. Engine.IO hides the `ws` socket that knows. */
const bufferedBytes = ({ conn }: Socket) =>
  (conn.transport as unknown as { socket: { bufferedAmount: number } }).socket.bufferedAmount
