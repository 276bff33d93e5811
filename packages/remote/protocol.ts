import { DefaultSerializer, deserialize } from 'node:v8'
import type { Redis, RedisOptions } from 'ioredis'

/** Connections, which are closed elsewhere, and signals between processes. */
export interface Valkey {
  connect(options: Omit<RedisOptions, 'replyMapping'>): Redis
  publish(channel: string, message: unknown): void
  subscribe(channel: string, listener: (message: unknown) => void): () => void
  report(error: unknown): void
}

export interface Work {
  task: string
  mode: 'one' | 'each' | 'joined'
  input: unknown
  requestId: string | undefined
  trace: string | undefined
}

export type Answer =
  | { outcome: 'done'; output: unknown; items: number; runMs: number }
  | { outcome: 'failed'; error: unknown; item: number | undefined }
  | { outcome: 'lost' }
  | { outcome: 'too-large'; fits: number }

/** Each server's, every `TICK_MS`; without threads while it stops. */
export interface Announcement {
  server: string
  threads: number
  tasks: string[]
}

/** To the client of a call: its server, its progress, or that its output is there. */
export type CallSignal =
  | { id: string; server: string }
  | { id: string; progress: number }
  | { id: string; answered: true }

export const PREFIX = 'offloop'
export const QUEUE = 'remote'
export const SERVERS = 'remote.servers'
export const CANCELLED = 'remote.cancelled'

/** BullMQ waits while Valkey is away. */
export const QUEUE_CONNECTION = {
  // Connections may be cut without a word; an idle worker's blocking command takes 5 s.
  socketTimeout: 8_000,
  maxRetriesPerRequest: null,
  enableOfflineQueue: true,
}

export const TICK_MS = 1_000
export const MAX_CHUNK_BYTES = 4 * 2 ** 20
/** Clients renew their inputs: one that is gone is no longer wanted. */
export const INPUT_TTL_MS = 5_000
export const OUTPUT_TTL_MS = 10_000
/** Servers that may end while they run one call. */
export const MAX_LOST_SERVERS = 2
export const endedServers: Answer = {
  outcome: 'failed',
  error: new Error(`${MAX_LOST_SERVERS} processes ended while they ran it`),
  item: undefined,
}
/** Sizes of items differ. */
const PLANNED_SHARE = 0.75

export const toChannel = (client: string) => `remote.client.${client}`
export const toInputKey = (id: string) => `${PREFIX}:remote-input:${id}`
export const toOutputKey = (id: string) => `${PREFIX}:remote-output:${id}`
/** BullMQ's own. */
export const toJobKey = (id: string) => `${PREFIX}:${QUEUE}:${id}`

export const toId = (client: string, number: number) => `${client}.${number}`
export const toClient = (id: string) => id.slice(0, id.lastIndexOf('.'))

export const countFitting = (items: number, bytes: number) =>
  Math.max(1, Math.floor((PLANNED_SHARE * items * MAX_CHUNK_BYTES) / bytes))

export const tooLarge = (what: string, task: string, bytes: number) =>
  new RangeError(
    `Expected at most ${MAX_CHUNK_BYTES} bytes of ${what} for a distributed call of ${task}, got ` +
      `${bytes}: put large data into storage that all processes share, and pass its name`,
  )

interface ViewWriter {
  _writeHostObject(view: NodeJS.ArrayBufferView): void
}

/** Documented, but its types lack it. */
const { _writeHostObject: writeView } = DefaultSerializer.prototype as unknown as ViewWriter

class ChunkSerializer extends DefaultSerializer implements ViewWriter {
  /** Shared memory would be copied. */
  _writeHostObject(view: NodeJS.ArrayBufferView) {
    if (view.buffer instanceof SharedArrayBuffer)
      throw new Error('Shared memory could not be cloned.')
    writeView.call(this, view)
  }
}

/** @throws DataCloneError for what only a thread of the same process can get. */
export function serialize(value: unknown, task: string): Buffer {
  try {
    const serializer = new ChunkSerializer()
    serializer.writeHeader()
    serializer.writeValue(value)
    return serializer.releaseBuffer()
  } catch (error) {
    const why = (error as Error).message
    const message = `${why} Run ${task} without \`distributed\`, in this process alone`
    throw new DOMException(message, 'DataCloneError')
  }
}

/** Unlike an Error, a DOMException would lose all that it has. */
export function serializeAnswer(answer: Answer, task: string): Buffer {
  if (answer.outcome !== 'failed' || !(answer.error instanceof DOMException))
    return serialize(answer, task)
  const { name, message, stack } = answer.error
  return serialize({ ...answer, error: { message, stack }, exception: name }, task)
}

export function readAnswer(bytes: Buffer): Answer {
  const { exception, ...answer } = deserialize(bytes)
  if (!exception) return answer
  const { message, stack } = answer.error
  const error = Object.assign(new DOMException(message, exception), { stack })
  return { ...answer, error }
}

export const readWork = (bytes: Buffer): Work => deserialize(bytes)
