import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { loadConfig } from '../../src/config.ts'
import { Database, type Db } from '../../src/db/database.ts'
import { AppError } from '../../src/errors.ts'
import { canConnect, findProgram, startPrivateServer } from './private-server.ts'

const ROOT = join(import.meta.dirname, '../..')
const DATA = join(ROOT, '.data')
const VOLUME = `offloop-${createHash('sha1').update(ROOT).digest('hex').slice(0, 8)}`
const IMAGE = 'mysql:9.7'
const CONTAINER_TIMEOUT_MS = 60_000
const POLL_MS = 100
const DOCKER_SOCKET = '/var/run/docker.sock'
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
 * The database of DATABASE_URL; otherwise the first of: a MySQL or MariaDB program on this machine,
 * Docker, Debian's packages (as root). Its data stays in `.data/` or, under Docker, in a volume.
 *
 * @throws AppError `unavailable` with commands that help when there is none.
 */
export async function openLocalDatabase(): Promise<LocalDatabase> {
  const given = process.env['DATABASE_URL']
  if (given) return { url: given, label: 'the one in DATABASE_URL', stop: async () => {} }
  const program = findProgram()
  if (program) return startPrivateServer(program, DATA)
  if (await hasDocker()) return startContainer(VOLUME)
  return startPrivateServer(installProgram(), DATA)
}

/** Runs `work` on the database of DATABASE_URL or, without it, the local one, and closes both. */
export async function onDatabase<T>(work: (db: Db) => Promise<T>): Promise<T> {
  const local = await openLocalDatabase()
  try {
    const config = loadConfig({ ...process.env, DATABASE_URL: local.url })
    await using database = await Database.open(config.database)
    return await work(database.withSignal())
  } finally {
    await local.stop()
  }
}

// feature: eject
/** Whether `openLocalDatabase` has a database to open that was there before. */
export function hasLocalDatabase(): boolean {
  const isThere = (data: string) => existsSync(join(DATA, data))
  if (process.env['DATABASE_URL'] || ['mariadb', 'mysql'].some(isThere)) return true
  return spawnSync('docker', ['volume', 'inspect', VOLUME]).status === 0
}
// /feature

/**
 * A server for tests and benches with empty data of its own, fast rather than durable, found as
 * above. `TEST_DATABASE=docker` or an image such as `mysql:8.4` insists on a container.
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

/** Whether testcontainers finds Docker, Podman, Colima or a remote engine. */
export async function hasDocker(): Promise<boolean> {
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

/** The port opens a little before the server accepts connections. */
async function untilReachable(url: string) {
  const deadline = AbortSignal.timeout(CONTAINER_TIMEOUT_MS)
  while (!(await canConnect(url))) {
    if (deadline.aborted)
      throw new AppError(
        'unavailable',
        'The MySQL container started, but accepts no connections: see `docker logs`',
      )
    await sleep(POLL_MS)
  }
}

/** Installs MariaDB's programs without its service. */
function installProgram(): string {
  if (!installPackages(PACKAGES)) throw noDatabase()
  const program = findProgram()
  if (!program)
    throw new AppError('unavailable', 'apt-get installed MariaDB, yet there is no mariadbd')
  return program
}

/** Whether this is a Debian on which we may install; then they are there. */
export function installPackages(packages: readonly string[]): boolean {
  if (!existsSync('/etc/debian_version') || process.getuid?.() !== 0) return false
  console.log(`Installing ${packages.join(' and ')}`)
  for (const args of [
    ['update', '-qq'],
    ['install', '-y', '-qq', '--no-install-recommends', ...packages],
  ])
    execFileSync('apt-get', args, {
      stdio: ['ignore', 'ignore', 'inherit'],
      // At run level 1 no service is started.
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' },
    })
  return true
}

interface Machine {
  platform?: NodeJS.Platform
  /** Whether there is a Docker whose socket this user may not use. */
  dockerRefuses?: boolean
}

/** The error for a machine without a database, with commands to copy. */
export function noDatabase({
  platform = process.platform,
  dockerRefuses = isRefused(),
}: Machine = {}): AppError {
  const lines = [
    ...(dockerRefuses
      ? ['sudo usermod -aG docker $USER && newgrp docker   # Docker runs, but refuses this user']
      : []),
    platform === 'darwin'
      ? 'brew install mariadb   # a private server, which starts and stops with the service'
      : 'sudo apt-get install mariadb-server-core mariadb-client-core   # a private server, which starts and stops with the service',
    'export DATABASE_URL=mysql://user:password@host:3306/offloop   # a server that you have',
  ]
  return new AppError(
    'unavailable',
    `No MySQL found. One of these lines helps, or starting Docker:\n\n  ${lines.join('\n  ')}\n`,
  )
}

function isRefused(): boolean {
  try {
    accessSync(DOCKER_SOCKET, constants.R_OK | constants.W_OK)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES'
  }
}
