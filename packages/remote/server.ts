import { setTimeout as sleep } from 'node:timers/promises'
import { type Job, Worker } from 'bullmq'
import type { Redis } from 'ioredis'
import {
  type Announcement,
  type Answer,
  CANCELLED,
  type CallSignal,
  countFitting,
  endedServers,
  MAX_CHUNK_BYTES,
  MAX_LOST_SERVERS,
  OUTPUT_TTL_MS,
  PREFIX,
  QUEUE,
  QUEUE_CONNECTION,
  readWork,
  SERVERS,
  serializeAnswer,
  TICK_MS,
  toChannel,
  toClient,
  toInputKey,
  toOutputKey,
  tooLarge,
  type Valkey,
  type Work,
} from './protocol.ts'

/** Within these two together, the death of a server is noticed. */
const LOCK_MS = 3_000
const STALLED_CHECK_MS = 1_500
const RETRY_MS = 1_000
const CLOSE_TIMEOUT_MS = 1_000

interface ServerOptions {
  valkey: Valkey
  /** The same as of the process's client. */
  id: string
  threads: number
  tasks: string[]
  run(
    work: Work,
    options: { signal: AbortSignal; onProgress: (fraction: number) => void },
  ): Promise<Answer>
  /** Aborts when it should take no more. */
  stopping: AbortSignal
}

/** Runs what clients of other processes send. */
export class RemoteServer implements AsyncDisposable {
  readonly #options: ServerOptions
  readonly #connection: Redis
  readonly #worker: Worker
  readonly #running = new Map<string, Promise<unknown>>()
  readonly #stops: (() => void)[]
  #isTicking = false

  constructor(options: ServerOptions) {
    const { valkey, threads, stopping } = options
    this.#options = options
    this.#connection = valkey.connect(QUEUE_CONNECTION)
    this.#worker = new Worker(QUEUE, (job, _, signal) => this.#serve(job, signal), {
      connection: this.#connection,
      prefix: PREFIX,
      concurrency: threads,
      lockDuration: LOCK_MS,
      stalledInterval: STALLED_CHECK_MS,
      // Counted here: BullMQ's own failure would not reach the client.
      maxStalledCount: MAX_LOST_SERVERS,
      runRetryDelay: RETRY_MS,
    })
    this.#worker.on('error', valkey.report)
    const timer = setInterval(() => this.#tick(), TICK_MS)
    this.#stops = [
      () => clearInterval(timer),
      valkey.subscribe(CANCELLED, (message) =>
        this.#worker.cancelJob((message as { id: string }).id),
      ),
    ]
    stopping.addEventListener('abort', () => this.#stop(), { once: true })
    this.#announce()
  }

  /** Ends what it runs, as `run` does once the process stops. */
  async [Symbol.asyncDispose]() {
    this.#stop()
    await Promise.allSettled(this.#running.values())
    await Promise.race([this.#worker.close(), sleep(CLOSE_TIMEOUT_MS, undefined, { ref: false })])
    for (const stop of this.#stops) stop()
    this.#connection.disconnect()
  }

  #stop() {
    this.#worker.pause(true).catch(this.#options.valkey.report)
    this.#announce()
  }

  #announce() {
    const { valkey, id, threads, tasks } = this.#options
    const announcement = { server: id, threads: this.#worker.isPaused() ? 0 : threads, tasks }
    valkey.publish(SERVERS, announcement satisfies Announcement)
  }

  #tick() {
    this.#announce()
    void this.#cancelUnwanted()
  }

  /** The client cancelled the call or was killed. */
  async #cancelUnwanted() {
    const ids = [...this.#running.keys()]
    if (ids.length === 0 || this.#isTicking) return
    this.#isTicking = true
    const pipeline = this.#connection.pipeline()
    for (const id of ids) pipeline.exists(toInputKey(id))
    try {
      const found = (await pipeline.exec()) ?? []
      for (const [index, id] of ids.entries())
        if (found[index]?.[1] === 0) this.#worker.cancelJob(id)
    } catch (error) {
      this.#options.valkey.report(error)
    } finally {
      this.#isTicking = false
    }
  }

  async #serve({ id = '', stalledCounter }: Job, signal: AbortSignal | undefined) {
    const input = await this.#connection.getBuffer(toInputKey(id))
    if (!input || !signal) return
    const work = readWork(input)
    this.#tell({ id, server: this.#options.id })
    const answer =
      stalledCounter >= MAX_LOST_SERVERS ? endedServers : await this.#run(id, work, signal)
    if (!answer) return
    const output = toBytes(answer, work)
    await this.#connection
      .multi()
      .set(toOutputKey(id), output, 'PX', OUTPUT_TTL_MS)
      .del(toInputKey(id))
      .exec()
    this.#tell({ id, answered: true })
  }

  /** Undefined once cancelled. */
  async #run(id: string, work: Work, signal: AbortSignal): Promise<Answer | undefined> {
    const onProgress = (progress: number) => this.#tell({ id, progress })
    const running = this.#options.run(work, { signal, onProgress })
    this.#running.set(id, running)
    try {
      return await running
    } catch (error) {
      if (signal.aborted) return undefined
      throw error
    } finally {
      this.#running.delete(id)
    }
  }

  #tell(signal: CallSignal) {
    this.#options.valkey.publish(toChannel(toClient(signal.id)), signal)
  }
}

function toBytes(answer: Answer, { task, mode, input }: Work): Buffer {
  let bytes: Buffer
  try {
    bytes = serializeAnswer(answer, task)
  } catch (error) {
    return serializeAnswer({ outcome: 'failed', error, item: undefined }, task)
  }
  if (bytes.byteLength <= MAX_CHUNK_BYTES) return bytes
  const items = mode === 'one' ? 1 : (input as unknown[]).length
  const error = tooLarge('output', task, bytes.byteLength)
  return serializeAnswer(
    items > 1
      ? { outcome: 'too-large', fits: Math.min(items - 1, countFitting(items, bytes.byteLength)) }
      : { outcome: 'failed', error, item: mode === 'one' ? undefined : 0 },
    task,
  )
}
