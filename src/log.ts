import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { Config } from './config.ts'

export type Log = Logger

/** Just below 64 KiB, which is what a pipe holds on Linux. */
const LOG_BUFFER_CHARACTERS = 64_000
const LOG_FLUSH_MS = 1_000

/**
 * Opens the process's one log on standard output. JSON lines are buffered (a write per request would cost the event
 * loop more than the line itself) and flushed at exit; a terminal gets readable lines at once.
 */
export function openLog({ level, format }: Config['log']): Log {
  const stream = format === 'pretty' ? pretty({ sync: true, singleLine: true, translateTime: 'HH:MM:ss.l' }) : new BufferedLines()
  return pino({ level, base: null }, stream)
}

/**
 * Hands lines on by the hundred. Pino's own destination has a `minLength` for that, but it copies all that waits with
 * each line, to measure it: a third of what a line costs.
 */
class BufferedLines {
  readonly #output = pino.destination({ sync: false })
  #waiting = ''

  constructor() {
    setInterval(() => this.#handOn(), LOG_FLUSH_MS).unref()
    process.once('exit', () => this.flushSync())
  }

  write(line: string) {
    this.#waiting += line
    if (this.#waiting.length >= LOG_BUFFER_CHARACTERS) this.#handOn()
  }

  /** Pino calls it after a fatal error. */
  flushSync() {
    this.#handOn()
    this.#output.flushSync()
  }

  #handOn() {
    if (this.#waiting) this.#output.write(this.#waiting)
    this.#waiting = ''
  }
}
