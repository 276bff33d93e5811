import { EventEmitter } from 'node:events'
import { Redis, type RedisOptions } from 'ioredis'
import { type Log, Repeats } from './log.ts'

const PREFIX = 'offloop:'
const CONNECT_TIMEOUT_MS = 2_000
const COMMAND_TIMEOUT_MS = 200
const RETRY_MS = 1_000

/**
 * What processes share besides the database: signals between them, and connections for push,
 * limits and remote tasks. While it fails, each process goes on by itself.
 */
export class Valkey implements Disposable {
  readonly #url: string
  readonly #log: Log
  readonly #connections = new Set<Redis>()
  readonly #failures = new Repeats()
  readonly #listeners = new EventEmitter().setMaxListeners(0)
  readonly #subscriber: Redis
  /** Its commands fail at once while there is no connection. */
  readonly commands: Redis

  constructor(url: string, log: Log) {
    this.#url = url
    this.#log = log
    this.commands = this.connect()
    this.#subscriber = this.connect({ autoResubscribe: true, enableOfflineQueue: true })
    this.#subscriber.on('message', (channel: string, message: string) =>
      this.#listeners.emit(channel.slice(PREFIX.length), JSON.parse(message)),
    )
  }

  get isReady(): boolean {
    return this.commands.status === 'ready'
  }

  /** A connection of the caller's own, closed with this. */
  connect(options: Omit<RedisOptions, 'replyMapping'> = {}): Redis {
    const connection = new Redis(this.#url, {
      connectTimeout: CONNECT_TIMEOUT_MS,
      commandTimeout: COMMAND_TIMEOUT_MS,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      retryStrategy: () => RETRY_MS,
      ...options,
    })
    connection.on('error', this.report)
    this.#connections.add(connection)
    return connection
  }

  /** Sends a signal to all processes, this one included; it is lost while Valkey fails. */
  publish(channel: string, message: unknown): void {
    this.commands.publish(PREFIX + channel, JSON.stringify(message)).catch(this.report)
  }

  subscribe(channel: string, listener: (message: unknown) => void): () => void {
    this.#listeners.on(channel, listener)
    this.#subscriber.subscribe(PREFIX + channel).catch(this.report)
    return () => this.#listeners.off(channel, listener)
  }

  [Symbol.dispose]() {
    for (const connection of this.#connections) connection.disconnect()
  }

  report = (error: unknown): undefined => {
    const message = 'Valkey fails: this process goes on by itself'
    const logOthers = (failures: number) => this.#log.warn({ failures }, message)
    if (this.#failures.isFirst('', logOthers)) this.#log.warn({ err: error }, message)
  }
}
