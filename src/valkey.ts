import { EventEmitter } from 'node:events'
import { Redis, type RedisOptions } from 'ioredis'
import { type Log, Repeats } from './log.ts'

const PREFIX = 'offloop:'
/** Where processes say that others may have missed signals. */
const GAPS = 'gaps'
const CONNECT_TIMEOUT_MS = 2_000
const SUBSCRIBE_TIMEOUT_MS = 1_000
const RETRY_MS = 1_000
const PING_EVERY_MS = 1_000
/** A connection without an answer for longer is opened again. */
const SILENCE_MS = 3_000

/**
 * Signals between processes, and connections for what else they share. While it fails, each process
 * goes on by itself.
 */
export class Valkey implements Disposable {
  readonly #url: string
  readonly #log: Log
  readonly #connections = new Set<Redis>()
  readonly #failures = new Repeats()
  readonly #listeners = new EventEmitter().setMaxListeners(0)
  readonly #subscriber: Redis
  readonly #pinging: NodeJS.Timeout
  /** Its commands fail at once while there is no connection. */
  readonly commands: Redis
  #hasDropped = false
  #hasMissed = false

  constructor(url: string, log: Log) {
    this.#url = url
    this.#log = log
    this.commands = this.connect({ socketTimeout: SILENCE_MS })
    this.commands.on('ready', () => {
      if (this.#hasDropped) this.publish(GAPS, null)
      this.#hasDropped = false
    })
    // ioredis resubscribes only to what it could subscribe to before.
    this.#subscriber = this.connect({
      commandTimeout: SUBSCRIBE_TIMEOUT_MS,
      socketTimeout: SILENCE_MS,
      autoResubscribe: false,
    })
    this.#subscriber.on('message', this.#receive)
    this.#subscriber.on('ready', () => void this.#resubscribe())
    this.#subscriber.on('close', () => {
      this.#hasMissed = true
    })
    this.#pinging = setInterval(() => this.#ping(), PING_EVERY_MS).unref()
  }

  get isReady(): boolean {
    return isReady(this.commands) && isReady(this.#subscriber)
  }

  /** A connection of the caller's own, closed with this. */
  connect(options: Omit<RedisOptions, 'replyMapping'> = {}): Redis {
    const connection = new Redis(this.#url, {
      connectTimeout: CONNECT_TIMEOUT_MS,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      retryStrategy: () => RETRY_MS,
      ...options,
    })
    connection.on('error', this.report)
    this.#connections.add(connection)
    return connection
  }

  /** To all processes, this one included; lost while Valkey fails. */
  publish(channel: string, message: unknown): void {
    if (!isReady(this.commands)) {
      this.#hasDropped = true
      return
    }
    this.commands.publish(PREFIX + channel, JSON.stringify(message)).catch((error) => {
      this.#hasDropped = true
      this.report(error)
    })
  }

  subscribe(channel: string, listener: (message: unknown) => void): () => void {
    this.#listeners.on(channel, listener)
    if (this.#listeners.listenerCount(channel) === 1) this.#send('subscribe', channel)
    return () => {
      this.#listeners.off(channel, listener)
      if (this.#listeners.listenerCount(channel) === 0) this.#send('unsubscribe', channel)
    }
  }

  /** Calls `listener` when signals may have been lost, and new ones arrive again. */
  onGap(listener: () => void): () => void {
    return this.subscribe(GAPS, listener)
  }

  /** Resolves once earlier calls of `subscribe` are in force, or Valkey fails. */
  async subscribed(): Promise<void> {
    if (isReady(this.#subscriber)) await this.#subscriber.ping().catch(this.report)
  }

  [Symbol.dispose]() {
    clearInterval(this.#pinging)
    for (const connection of this.#connections) connection.disconnect()
  }

  report = (error: unknown): undefined => {
    const message = 'Valkey fails: this process goes on by itself'
    const logOthers = (failures: number) => this.#log.warn({ failures }, message)
    if (this.#failures.isFirst('', logOthers)) this.#log.warn({ err: error }, message)
  }

  /** Otherwise `#resubscribe` does it. */
  #send(verb: 'subscribe' | 'unsubscribe', channel: string) {
    if (isReady(this.#subscriber)) this.#subscriber[verb](PREFIX + channel).catch(this.report)
  }

  async #resubscribe() {
    const channels = this.#listeners.eventNames().map((channel) => PREFIX + String(channel))
    try {
      if (channels.length > 0) await this.#subscriber.subscribe(...channels)
      if (this.#hasMissed) this.#receive(PREFIX + GAPS, 'null')
      this.#hasMissed = false
    } catch (error) {
      this.report(error)
      this.#subscriber.disconnect(true)
    }
  }

  /** An exception here would end the process. */
  readonly #receive = (channel: string, text: string) => {
    try {
      this.#listeners.emit(channel.slice(PREFIX.length), JSON.parse(text))
    } catch (error) {
      const message = 'Cannot handle a signal of another process'
      const logOthers = (failures: number) => this.#log.error({ channel, failures }, message)
      if (this.#failures.isFirst(channel, logOthers))
        this.#log.error({ err: error, channel }, message)
    }
  }

  /** A server that hangs closes nothing: only a missing answer tells. */
  #ping() {
    for (const connection of [this.commands, this.#subscriber])
      if (isReady(connection)) connection.ping().catch(() => {})
  }
}

const isReady = ({ status }: Redis) => status === 'ready'
