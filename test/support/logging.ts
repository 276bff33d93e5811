import { openLog } from '../../src/log.ts'

/** Logs a line, then a second one, and ends as END says. */
const log = openLog({ level: 'info', format: 'json' })
const kill = () => process.kill(process.pid, 'SIGKILL')

const ends: Record<string, () => void> = {
  exit() {
    log.info('the second')
    process.exit()
  },
  fatal() {
    log.fatal('the second')
    kill()
  },
  'killed soon': () => later(() => setTimeout(kill, 500)),
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
