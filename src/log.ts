import cluster from 'node:cluster'
import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { Config } from './config.ts'

export type Log = Logger

const COLLECT_MS = 100
/** Just below 64 KiB, the size of a pipe on Linux. */
const MAX_COLLECTED_CHARACTERS = 64_000
/** Kept while nothing reads the log: some 200 000 lines. */
const MAX_UNREAD_BYTES = 32 * 1024 ** 2
const REPEATS_MS = 5_000

const SECRETS = ['authorization', 'cookie', 'set-cookie', 'password', 'newPassword', 'token']
/** Wildcards would cost many times the line. */
const PLACES = ['', 'headers', 'body', 'err']
const redact = PLACES.flatMap((place) => SECRETS.map((name) => `${place}["${name}"]`))
/** Of sessions and API keys. */
const TOKENS = /of[sl]_[\w-]{43}/g
const hooks = { streamWrite: (line: string) => line.replace(TOKENS, '[Redacted]') }

/** @param mixin adds fields to each line. */
export function openLog({ level, format }: Config['log'], mixin?: () => object): Log {
  const stream =
    format === 'pretty'
      ? pretty({ sync: true, singleLine: true, translateTime: 'HH:MM:ss.l' })
      : new LineBuffer()
  const base = cluster.isWorker ? { pid: process.pid } : null
  return pino({ level, base, redact, hooks, ...(mixin && { mixin }) }, stream)
}

/** Writes the first line of a kind and counts the others. */
export class Repeats {
  readonly #counts = new Map<string, number>()

  /**
   * Whether the line is the first of its kind within 5 s.
   *
   * @param logOthers called with the number of others, if any.
   */
  isFirst(kind: string, logOthers: (count: number) => void): boolean {
    const count = this.#counts.get(kind)
    this.#counts.set(kind, count === undefined ? 0 : count + 1)
    if (count !== undefined) return false
    const end = () => {
      const others = this.#counts.get(kind)
      this.#counts.delete(kind)
      if (others) logOthers(others)
    }
    setTimeout(end, REPEATS_MS).unref()
    return true
  }
}

/**
 * Collects lines, because a write costs more. Pino's `minLength` measures all that waits for each
 * new line. A full disk or a stalled reader costs lines, never the service.
 */
class LineBuffer {
  readonly #output = pino.destination({ sync: false, maxLength: MAX_UNREAD_BYTES })
  readonly #urgent = pino.destination({ sync: true })
  #lines = ''
  #timer: NodeJS.Timeout | undefined
  #dropped = 0

  constructor() {
    const output = this.#output
    const { flushSync } = output
    // pino's own repeats a failing write forever.
    output.on('error', () => Object.assign(output, { flushSync: () => {} }))
    output.on('write', () => Object.assign(output, { flushSync }))
    this.#urgent.on('error', () => {})
    output.on('drop', (lines: string) => {
      this.#dropped += lines.split('\n').length - 1
    })
    output.on('drain', () => this.#reportDropped())
    process.once('exit', () => this.flushSync())
  }

  write(line: string) {
    this.#lines += line
    if (this.#lines.length >= MAX_COLLECTED_CHARACTERS) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), COLLECT_MS).unref()
  }

  /** Pino calls it after a fatal error. */
  flushSync() {
    this.#output.flushSync()
    this.#flush(this.#urgent)
  }

  #flush(output = this.#output) {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#lines) output.write(this.#lines)
    this.#lines = ''
  }

  #reportDropped() {
    if (this.#dropped === 0) return
    const msg = `Log reader too slow: dropped ${this.#dropped} lines before this one`
    this.#dropped = 0
    this.write(`${JSON.stringify({ level: pino.levels.values['warn'], time: Date.now(), msg })}\n`)
  }
}
