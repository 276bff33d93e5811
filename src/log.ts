import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { Config } from './config.ts'

export type Log = Logger

/** Just below 64 KiB, which is what a pipe holds on Linux. */
const LOG_BUFFER_CHARACTERS = 64_000
const LOG_PAUSE_MS = 1_000
/** After the first of many lines of one kind, the others are counted for so long. */
const REPEATS_MS = 5_000
/** What may wait while nobody reads the log: some 200 000 lines. */
const MAX_UNREAD_BYTES = 32 * 1024 ** 2

/**
 * Opens the process's one log on standard output. JSON lines are collected where many come (a write
 * per request would cost the event loop more than the line itself) and flushed at exit; a terminal
 * gets readable lines at once.
 */
export function openLog({ level, format }: Config['log']): Log {
  const stream =
    format === 'pretty'
      ? pretty({ sync: true, singleLine: true, translateTime: 'HH:MM:ss.l' })
      : new BufferedLines()
  return pino({ level, base: null }, stream)
}

/**
 * For lines that may come by the thousand: the first of a kind is written at once, the others are
 * counted and written as one.
 */
export class Repeats {
  readonly #counts = new Map<string, number>()

  /**
   * Whether the line is the first of its kind for a while.
   *
   * @param logOthers called once at the end of that while with the number of those that followed,
   * if any did.
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
 * Hands the lines of a turn of the event loop on at its end, then those of the next second
 * together. Pino's own destination has a `minLength` to collect lines, but it copies all that waits
 * with each line, to measure it: a third of what a line costs.
 */
class BufferedLines {
  readonly #output = pino.destination({ sync: false, maxLength: MAX_UNREAD_BYTES })
  /**
   * For when there may be no time left: what `#output` was given is on its way in another thread.
   */
  readonly #urgent = pino.destination({ sync: true })
  #waiting = ''
  /** When they are handed on, unless they become too many before. */
  #next: NodeJS.Immediate | NodeJS.Timeout | undefined
  #dropped = 0

  constructor() {
    this.#output.on('drop', (lines: string) => {
      this.#dropped += lines.split('\n').length - 1
    })
    this.#output.on('drain', () => this.#tellDropped())
    // A full disk, say. What could not be written is written with the next lines, or dropped when
    // it becomes too much.
    for (const output of [this.#output, this.#urgent]) output.on('error', () => {})
    process.once('exit', () => this.flushSync())
  }

  write(line: string) {
    this.#waiting += line
    if (this.#waiting.length >= LOG_BUFFER_CHARACTERS) this.#handOn()
    this.#next ??= setImmediate(() => this.#handOnAndPause())
  }

  /** Pino calls it after a fatal error. */
  flushSync() {
    this.#output.flushSync()
    this.#handOn(this.#urgent)
  }

  #handOnAndPause() {
    this.#next = this.#waiting
      ? setTimeout(() => this.#handOnAndPause(), LOG_PAUSE_MS).unref()
      : undefined
    this.#handOn()
  }

  #handOn(output = this.#output) {
    if (this.#waiting) output.write(this.#waiting)
    this.#waiting = ''
  }

  /**
   * A reader that stood still costs lines, not the service its memory: it is told how many once it
   * reads again.
   */
  #tellDropped() {
    if (this.#dropped === 0) return
    const msg = `Nobody read the log: ${this.#dropped} lines are missing before this one`
    this.#dropped = 0
    this.write(`${JSON.stringify({ level: pino.levels.values['warn'], time: Date.now(), msg })}\n`)
  }
}
