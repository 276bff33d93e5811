import { globSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { findProgram, startPrivateServer } from '../../scripts/database/private-server.ts'
import { until } from './until.ts'

/**
 * Where there is only Docker, no test may kill its database: `npm run test:docker` kills the
 * container.
 */
export const canOwnServer = findProgram() !== undefined

/** A server of the test's own that it may kill. */
export async function useOwnServer() {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-outage-'))
  const start = () => startPrivateServer(findProgram() ?? '', folder)
  let server = await start()
  onTestFinished(async () => {
    await server.stop()
    await rm(folder, { recursive: true })
  })
  return {
    url: server.url,
    async send(signal: NodeJS.Signals) {
      const [pidFile = ''] = globSync(join(folder, '*/mysqld.pid'))
      const pid = Number(await readFile(pidFile, 'utf8'))
      process.kill(pid, signal)
      if (signal === 'SIGSTOP')
        await until(() => hasStopped(pid), 'all threads of the server have stopped')
    },
    async restart() {
      server = await start()
    },
  }
}

/**
 * Whether no thread of the process runs any more: they stop one by one. Where nobody says so, they
 * are taken for stopped.
 */
const hasStopped = (pid: number) =>
  globSync(`/proc/${pid}/task/*/stat`).every((file) => /\) T/.test(readFileSync(file, 'utf8')))
