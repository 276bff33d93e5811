import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { AppError } from '../../src/errors.ts'
import { hasDocker, installPackages, type LocalDatabase } from './local-database.ts'
import { findFreePort, findInFolders } from './private-server.ts'

const GUARD = join(import.meta.dirname, 'guard.ts')
const PACKAGE = 'redis-server'
const IMAGE = 'valkey/valkey:8.1'
const PORT = 6379
const START_TIMEOUT_MS = 10_000

/** In memory only: the truth is in the database. */
export const VALKEY_OPTIONS = ['--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']

/**
 * The Valkey of VALKEY_URL; otherwise the first of: a Valkey or Redis program on this machine,
 * Docker, Debian's package (as root).
 *
 * @throws AppError `unavailable` with commands that help when there is none.
 */
export async function openLocalValkey(): Promise<LocalDatabase> {
  const given = process.env['VALKEY_URL']
  if (given) return { url: given, label: 'the one in VALKEY_URL', stop: async () => {} }
  const program = findValkey()
  if (program) return startPrivate(program)
  return (await hasDocker()) ? startContainer() : startPrivate(installValkey())
}

export const findValkey = () => findInFolders('valkey-server') ?? findInFolders('redis-server')

/** @throws AppError `unavailable` where only an administrator may install it. */
export function installValkey(): string {
  if (installPackages([PACKAGE])) return findValkey() as string
  const lines = [
    process.platform === 'darwin'
      ? 'brew install valkey   # a private server, which starts and stops with the service'
      : `sudo apt-get install ${PACKAGE}   # a private server, which starts and stops with the service`,
    'export VALKEY_URL=redis://host:6379   # a server that you have',
  ]
  throw new AppError(
    'unavailable',
    `Several processes need a Valkey or Redis. One of these lines helps, or starting Docker:\n\n  ${lines.join('\n  ')}\n`,
  )
}

async function startPrivate(program: string): Promise<LocalDatabase> {
  const port = String(await findFreePort())
  const args = [GUARD, program, '--port', port, ...VALKEY_OPTIONS]
  const server = spawn(process.execPath, args, { stdio: ['pipe', 'ignore', 'ignore'] })
  const url = `redis://127.0.0.1:${port}`
  const stop = async () => {
    if (server.exitCode !== null) return
    server.stdin.end()
    await once(server, 'exit')
  }
  const { Redis } = await import('ioredis')
  const connection = new Redis(url, { retryStrategy: () => 50, maxRetriesPerRequest: null })
  connection.on('error', () => {})
  try {
    await Promise.race([connection.ping(), rejectLater()])
  } catch (cause) {
    await stop()
    throw new AppError('unavailable', `${program} did not start`, { cause })
  } finally {
    connection.disconnect()
  }
  return { url, label: program, stop }
}

async function rejectLater(): Promise<never> {
  await once(AbortSignal.timeout(START_TIMEOUT_MS), 'abort')
  throw new Error(`It accepts no connections after ${START_TIMEOUT_MS} ms`)
}

async function startContainer(): Promise<LocalDatabase> {
  const { GenericContainer } = await import('testcontainers')
  const started = await new GenericContainer(IMAGE).withExposedPorts(PORT).start()
  const url = `redis://${started.getHost()}:${started.getMappedPort(PORT)}`
  return { url, label: `${IMAGE} in Docker`, stop: async () => void (await started.stop()) }
}
