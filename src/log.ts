import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { Config } from './config.ts'

export type Log = Logger

/**
 * Opens the process's one log on standard output. JSON lines are buffered (a write per request would cost the event
 * loop more than the line itself) and flushed at exit; a terminal gets readable lines at once.
 */
export function openLog({ level, format }: Config['log']): Log {
  const stream = format === 'pretty' ? pretty({ sync: true, ignore: 'pid,hostname', translateTime: 'HH:MM:ss.l' }) : jsonLines()
  return pino({ level, timestamp: pino.stdTimeFunctions.isoTime }, stream)
}

function jsonLines() {
  const destination = pino.destination({ dest: 1, sync: false, minLength: 4096, periodicFlush: 1_000 })
  process.on('exit', () => destination.flushSync())
  return destination
}
