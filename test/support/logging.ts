import { openLog } from '../../src/log.ts'

/** Logs a line, then a second one, secrets or a flood of lines, and ends as END says. */
const log = openLog({ level: 'info', format: 'json' })
const FLOOD_LINES = 60_000
const kill = () => process.kill(process.pid, 'SIGKILL')

const ends: Record<string, () => void> = {
  exit() {
    log.info('the second')
    process.exit()
  },
  'exit later': () => later(() => setTimeout(() => process.exit(), 500)),
  fatal() {
    log.fatal('the second')
    kill()
  },
  flooded: () => flood(FLOOD_LINES),
  secrets() {
    const token = `ofs_${'t'.repeat(43)}`
    const fields = {
      authorization: 'PRIVATE',
      cookie: 'PRIVATE',
      'set-cookie': 'PRIVATE',
      public: 1,
    }
    const passwords = { password: 'PRIVATE', newPassword: 'PRIVATE', token: 'PRIVATE' }
    const all = { ...fields, ...passwords }
    const err = Object.assign(new Error(`The token ${token} is wrong`), all)
    log.warn({ ...all, headers: all, body: all, err }, `/sign-in?token=${token}`)
    process.exit()
  },
  never: () => later(() => setInterval(() => {}, 1_000)),
}

log.info('the first')
ends[process.env['END'] ?? 'never']?.()

/** Not in the turn of the event loop that the first one belongs to. */
function later(end: () => void) {
  setTimeout(() => {
    log.info('the second')
    end()
  }, 20)
}

/**
 * Of a kilobyte each, some in each turn of the event loop; says on the other stream when it is
 * done.
 */
function flood(lines: number) {
  if (lines === 0) return console.error('done')
  for (let line = 0; line < 100; line++) log.info('x'.repeat(1_000))
  setImmediate(() => flood(lines - 100))
}
