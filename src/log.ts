import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { Config } from './config.ts'

export type Log = Logger

const LOG_BUFFER_BYTES = 8 * 1024
const LOG_FLUSH_MS = 1_000

/**
 * Opens the process's one log on standard output. JSON lines are buffered (a write per request would cost the event
 * loop more than the line itself) and flushed at exit; a terminal gets readable lines at once.
 */
export function openLog({ level, format }: Config['log']): Log {
  const stream =
    format === 'pretty'
      ? pretty({ sync: true, singleLine: true, translateTime: 'HH:MM:ss.l' })
      : pino.destination({ sync: false, minLength: LOG_BUFFER_BYTES, periodicFlush: LOG_FLUSH_MS })
  return pino({ level, base: null }, stream)
}
