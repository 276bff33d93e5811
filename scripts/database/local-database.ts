import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../src/errors.ts'
import { canConnect } from './can-connect.ts'
import { noDatabase } from './no-database.ts'
import { findProgram, startPrivateServer } from './private-server.ts'

const ROOT = join(import.meta.dirname, '../..')
const DATA = join(ROOT, '.data')
const VOLUME = `offloop-${createHash('sha1').update(ROOT).digest('hex').slice(0, 8)}`
const IMAGE = 'mysql:9.7'
const CONTAINER_TIMEOUT_MS = 60_000
const POLL_MS = 100
const PACKAGES = ['mariadb-server-core', 'mariadb-client-core']

/** A server for this checkout to work with. */
export interface LocalDatabase {
  url: string
  /** Which server it is and where, for people. */
  label: string
  /** Ends what was started for it; the data stays. */
  stop(): Promise<void>
}

/**
 * The database that DATABASE_URL names; without one, the first of: a MySQL or MariaDB program on
 * this machine, Docker, Debian's packages (as root). Its data stays in `.data/` or, under Docker,
 * in a volume.
 *
 * @throws AppError naming the ways out when there is none.
 */
export async function openLocalDatabase(): Promise<LocalDatabase> {
  const given = process.env['DATABASE_URL']
  if (given) return { url: given, label: 'the one in DATABASE_URL', stop: async () => {} }
  const program = findProgram()
  if (program) return startPrivateServer(program, DATA)
  if (await hasDocker()) return startContainer(VOLUME)
  return startPrivateServer(installProgram(), DATA)
}

/** Whether `openLocalDatabase` has a database to open that was there before. */
export function hasLocalDatabase(): boolean {
  const isThere = (data: string) => existsSync(join(DATA, data))
  if (process.env['DATABASE_URL'] || ['mariadb', 'mysql'].some(isThere)) return true
  return spawnSync('docker', ['volume', 'inspect', VOLUME]).status === 0
}

/**
 * A server to throw away, for tests and load tests: found as above, but with its own empty data,
 * set to be fast rather than durable. `TEST_DATABASE=docker` insists on the container,
 * `TEST_DATABASE=mysql:8.4` on that image. With DATABASE_URL it is that server, which stays.
 */
export async function openTemporaryDatabase(): Promise<LocalDatabase> {
  const { TEST_DATABASE: image, DATABASE_URL: given } = process.env
  if (image) return startContainer(undefined, image === 'docker' ? IMAGE : image)
  if (given) return { url: given, label: 'the one in DATABASE_URL', stop: async () => {} }
  const program = findProgram()
  if (program || !(await hasDocker())) return startTemporaryServer(program ?? installProgram())
  return startContainer()
}

async function startTemporaryServer(program: string): Promise<LocalDatabase> {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-'))
  const server = await startPrivateServer(program, folder, [
    '--innodb-flush-log-at-trx-commit=0',
    '--innodb-doublewrite=0',
  ])
  return {
    ...server,
    async stop() {
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Whether testcontainers finds an engine: it knows Docker, Podman, Colima and remote ones. */
async function hasDocker(): Promise<boolean> {
  const { getContainerRuntimeClient } = await import('testcontainers')
  return getContainerRuntimeClient().then(
    () => true,
    () => false,
  )
}

/** Starts `image`; with a volume its data outlives the container. */
async function startContainer(volume?: string, image = IMAGE): Promise<LocalDatabase> {
  const { MySqlContainer } = await import('@testcontainers/mysql')
  const container = new MySqlContainer(image).withDatabase('offloop')
  if (volume) container.withBindMounts([{ source: volume, target: '/var/lib/mysql', mode: 'rw' }])
  const started = await container.start()
  const url = started.getConnectionUri(true)
  await untilReachable(url)
  return {
    url,
    label: `${image} in Docker${volume ? `, data in the volume ${volume}` : ''}`,
    async stop() {
      await started.stop()
    },
  }
}

/** The port opens a little before the server lets anyone in. */
async function untilReachable(url: string) {
  const deadline = AbortSignal.timeout(CONTAINER_TIMEOUT_MS)
  while (!(await canConnect(url))) {
    if (deadline.aborted)
      throw new AppError(
        'unavailable',
        'The MySQL container started, but lets nobody in: see `docker logs`',
      )
    await sleep(POLL_MS)
  }
}

/** MariaDB's programs without its service: no daemon, nothing that starts at boot, no account. */
function installProgram(): string {
  if (!existsSync('/etc/debian_version') || process.getuid?.() !== 0) throw noDatabase()
  console.log(`Installing ${PACKAGES.join(' and ')}`)
  for (const args of [
    ['update', '-qq'],
    ['install', '-y', '-qq', '--no-install-recommends', ...PACKAGES],
  ])
    execFileSync('apt-get', args, {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
  const program = findProgram()
  if (!program)
    throw new AppError('unavailable', 'apt-get installed MariaDB, yet there is no mariadbd')
  return program
}
