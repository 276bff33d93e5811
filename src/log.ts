import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { Config } from './config.ts'

export type Log = Logger

const COLLECT_MS = 100
/** Just below 64 KiB, which is what a pipe holds on Linux. */
const MAX_COLLECTED_CHARACTERS = 64_000
/** What waits at most while nothing reads the log: some 200 000 lines. */
const MAX_UNREAD_BYTES = 32 * 1024 ** 2
/** How long lines like the first one are counted instead of written. */
const REPEATS_MS = 5_000

/**
 * Opens the process's one log on standard output: JSON lines, which are collected for up to 100 ms
 * because a write for each would cost more than the line; in a terminal, readable lines at once.
 */
export function openLog({ level, format }: Config['log']): Log {
  const stream =
    format === 'pretty'
      ? pretty({ sync: true, singleLine: true, translateTime: 'HH:MM:ss.l' })
      : new LineBuffer()
  return pino({ level, base: null }, stream)
}

/** For lines that may come by the thousand: the first of a kind is written, the others counted. */
export class Repeats {
  readonly #counts = new Map<string, number>()

  /**
   * Whether the line is the first of its kind within 5 s.
   *
   * @param logOthers called at their end with the number of those that followed, if any did.
   */
  isFirst(kind: string, logOthers: (count: number) => void): boolean {
    const count = this.#counts.get(kind)
    this.#counts.set(kind, count === undefined ? 0 : count + 1)
    if (count !== undefined) return false
    setTimeout(() => this.#end(kind, logOthers), REPEATS_MS).unref()
    return true
  }

  #end(kind: string, logOthers: (count: number) => void) {
    const others = this.#counts.get(kind)
    this.#counts.delete(kind)
    if (others) logOthers(others)
  }
}

/**
 * Collects lines in front of pino's destination, whose own `minLength` measures all that waits for
 * each new line. A full disk or a reader that stands still costs lines, never the service.
 */
class LineBuffer {
  readonly #output = pino.destination({ sync: false, maxLength: MAX_UNREAD_BYTES })
  /** For the end of the process, when no other thread may finish a write. */
  readonly #urgent = pino.destination({ sync: true })
  #lines = ''
  #timer: NodeJS.Timeout | undefined
  #dropped = 0

  constructor() {
    const output = this.#output
    const { flushSync } = output
    // pino's own repeats a write that fails for ever.
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
