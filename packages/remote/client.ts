import { Queue } from 'bullmq'
import type { Redis } from 'ioredis'
import {
  type Announcement,
  type Answer,
  CANCELLED,
  type CallSignal,
  countFitting,
  endedServers,
  INPUT_TTL_MS,
  MAX_CHUNK_BYTES,
  MAX_LOST_SERVERS,
  PREFIX,
  QUEUE,
  QUEUE_CONNECTION,
  readAnswer,
  SERVERS,
  serialize,
  TICK_MS,
  toChannel,
  toId,
  toInputKey,
  toJobKey,
  toOutputKey,
  tooLarge,
  type Valkey,
  type Work,
} from './protocol.ts'

/** Without an announcement for so long, a server is gone, or Valkey is. */
const SERVER_TIMEOUT_MS = 3_000
const CALLS_PER_THREAD = 2
/** After a call that could not be sent, none is. */
const PAUSE_MS = 1_000
/** Of BullMQ, which nobody reads. */
const MAX_EVENTS = 10

export type Outcome = Answer['outcome'] | 'cancelled'

interface ClientOptions {
  valkey: Valkey
  /** The same as of the process's server, to which nothing is sent. */
  id: string
  onOutcome?: (outcome: Outcome) => void
}

interface Server {
  threads: number
  tasks: Set<string>
  seenAt: number
}

interface Call {
  answer(answer: Answer): void
  onProgress: ((fraction: number) => void) | undefined
  isSent: boolean
  starts: number
  server: string | undefined
}

/** Sends calls to the servers of other processes. */
export class RemoteClient implements AsyncDisposable {
  readonly #valkey: Valkey
  readonly #id: string
  readonly #onOutcome: (outcome: Outcome) => void
  readonly #connection: Redis
  readonly #queue: Queue
  readonly #servers = new Map<string, Server>()
  readonly #calls = new Map<string, Call>()
  readonly #stops: (() => void)[]
  #lastNumber = 0
  #isRenewing = false
  #pausedUntil = 0

  constructor({ valkey, id, onOutcome = () => {} }: ClientOptions) {
    this.#valkey = valkey
    this.#id = id
    this.#onOutcome = onOutcome
    this.#connection = valkey.connect(QUEUE_CONNECTION)
    this.#queue = new Queue(QUEUE, {
      connection: this.#connection,
      prefix: PREFIX,
      defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
      streams: { events: { maxLen: MAX_EVENTS } },
    })
    this.#queue.on('error', valkey.report)
    // Timers fire before messages: announcements may have arrived.
    const timer = setInterval(() => setImmediate(() => this.#tick()), TICK_MS).unref()
    this.#stops = [
      () => clearInterval(timer),
      valkey.subscribe(SERVERS, (message) => this.#observeServer(message as Announcement)),
      valkey.subscribe(toChannel(id), (message) => this.#receive(message as CallSignal)),
    ]
  }

  get running() {
    return this.#calls.size
  }

  /** None while a server lacks the task, as in a rolling update. */
  places(task: string): number {
    if (performance.now() < this.#pausedUntil) return 0
    let threads = 0
    for (const server of this.#servers.values()) {
      if (server.threads > 0 && !server.tasks.has(task)) return 0
      threads += server.threads
    }
    return Math.max(0, threads * CALLS_PER_THREAD - this.#calls.size)
  }

  /** @throws DataCloneError; RangeError for an input that is too large by itself. */
  async run(
    work: Work,
    { signal, onProgress }: { signal: AbortSignal; onProgress?: Call['onProgress'] },
  ): Promise<Answer> {
    const input = toBytes(work)
    if (typeof input === 'number') {
      this.#onOutcome('too-large')
      return { outcome: 'too-large', fits: input }
    }
    const id = toId(this.#id, ++this.#lastNumber)
    const { promise, resolve } = Promise.withResolvers<Answer>()
    this.#calls.set(id, {
      answer: resolve,
      onProgress,
      isSent: false,
      starts: 0,
      server: undefined,
    })
    const onAbort = () => resolve({ outcome: 'lost' })
    signal.addEventListener('abort', onAbort)
    void this.#send(id, work.task, input)
    try {
      const answer = await promise
      if (answer.outcome === 'lost') this.#forget(id)
      this.#onOutcome(signal.aborted ? 'cancelled' : answer.outcome)
      return answer
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#calls.delete(id)
    }
  }

  async [Symbol.asyncDispose]() {
    for (const stop of this.#stops) stop()
    for (const { answer } of this.#calls.values()) answer({ outcome: 'lost' })
    this.#connection.disconnect()
  }

  async #send(id: string, task: string, input: Buffer) {
    try {
      await Promise.all([
        this.#connection.set(toInputKey(id), input, 'PX', INPUT_TTL_MS),
        this.#queue.add(task, {}, { jobId: id }),
      ])
      const call = this.#calls.get(id)
      if (call) call.isSent = true
    } catch (error) {
      this.#pausedUntil = performance.now() + PAUSE_MS
      this.#valkey.report(error)
      this.#lose(id)
    }
  }

  #observeServer({ server, threads, tasks }: Announcement) {
    if (server === this.#id) return
    this.#servers.set(server, { threads, tasks: new Set(tasks), seenAt: performance.now() })
  }

  #receive(signal: CallSignal) {
    const call = this.#calls.get(signal.id)
    if (!call) return
    if ('progress' in signal) call.onProgress?.(signal.progress)
    else if ('answered' in signal) void this.#fetch(signal.id)
    else {
      call.starts++
      call.server = signal.server
    }
  }

  async #fetch(id: string) {
    try {
      const bytes = await this.#connection.getdelBuffer(toOutputKey(id))
      if (bytes) this.#calls.get(id)?.answer(readAnswer(bytes))
    } catch (error) {
      this.#valkey.report(error)
      this.#lose(id)
    }
  }

  #tick() {
    const goneAt = performance.now() - SERVER_TIMEOUT_MS
    let threads = 0
    for (const [name, server] of this.#servers) {
      if (server.seenAt < goneAt) this.#servers.delete(name)
      else threads += server.threads
    }
    // A server that stops still ends what it runs.
    for (const call of this.#calls.values())
      if (threads === 0 && (!call.server || !this.#servers.has(call.server)))
        call.answer(this.#hasEndedServers(call) ? endedServers : { outcome: 'lost' })
    void this.#renew()
  }

  #hasEndedServers({ starts }: Call) {
    return starts >= MAX_LOST_SERVERS && this.#connection.status === 'ready'
  }

  /** Also finds missed outputs, and calls that Valkey forgot. */
  async #renew() {
    const ids = [...this.#calls].filter(([, { isSent }]) => isSent).map(([id]) => id)
    if (ids.length === 0 || this.#isRenewing) return
    this.#isRenewing = true
    const pipeline = this.#connection.pipeline()
    for (const id of ids) {
      pipeline.pexpire(toInputKey(id), INPUT_TTL_MS)
      // In this order: an output is there before its job is removed.
      pipeline.exists(toJobKey(id))
      pipeline.exists(toOutputKey(id))
    }
    try {
      const found = ((await pipeline.exec()) ?? []).map(([, count]) => count === 1)
      for (const [index, id] of ids.entries()) {
        const [isWanted, isQueued, isAnswered] = found.slice(index * 3)
        if (isAnswered) void this.#fetch(id)
        else if (!isWanted || !isQueued) this.#lose(id)
      }
    } catch (error) {
      this.#valkey.report(error)
    } finally {
      this.#isRenewing = false
    }
  }

  #lose(id: string) {
    this.#calls.get(id)?.answer({ outcome: 'lost' })
  }

  #forget(id: string) {
    this.#valkey.publish(CANCELLED, { id })
    this.#connection.del(toInputKey(id), toOutputKey(id)).catch(this.#valkey.report)
    this.#queue.remove(id).catch(this.#valkey.report)
  }
}

/** The bytes to send, or how many inputs would fit. */
function toBytes(work: Work): Buffer | number {
  const { task, mode, input } = work
  const inputs = mode === 'one' ? [input] : (input as unknown[])
  if (inputs.length > 1) {
    // The first tells what all have: too much takes long to serialize.
    const first = serialize(inputs[0], task).byteLength
    if (first > MAX_CHUNK_BYTES) throw tooLarge('input', task, first)
    if (first * inputs.length > 2 * MAX_CHUNK_BYTES) return countFitting(1, first)
  }
  const bytes = serialize(work, task)
  if (bytes.byteLength <= MAX_CHUNK_BYTES) return bytes
  if (inputs.length === 1) throw tooLarge('input', task, bytes.byteLength)
  return countFitting(inputs.length, bytes.byteLength)
}
