import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { AppError } from '../../src/errors.ts'
import { canConnect } from './can-connect.ts'
import type { LocalDatabase } from './local-database.ts'

const run = promisify(execFile)

const START_TIMEOUT_MS = 60_000
const POLL_MS = 50
const GUARD = join(import.meta.dirname, 'guard.ts')
const FOLDERS = [
  ...(process.env['PATH'] ?? '').split(':'),
  '/usr/sbin',
  '/usr/local/sbin',
  '/opt/homebrew/bin',
  '/usr/local/mysql/bin',
]

/**
 * The MySQL or MariaDB server program of this machine, if it has one. MariaDB's counts only with the two programs that
 * lay out its data: Debian has the second one in another package than the server.
 */
export function findProgram(): string | undefined {
  const mariadb = findInFolders('mariadbd')
  if (mariadb && findInFolders('mariadb-install-db') && findInFolders('my_print_defaults')) return mariadb
  return mariadb ? undefined : findInFolders('mysqld')
}

const findInFolders = (program: string) => FOLDERS.map((folder) => join(folder, program)).find((path) => existsSync(path))

/**
 * Starts `program` as a private child on a free port, reachable from this machine only, with its data in `folder`.
 * It ends with `stop()`, or when this process does, however that ends. A server that another process started on the
 * same folder is shared.
 *
 * @param options further server options, such as those that trade durability for speed in tests.
 * @throws AppError with the end of the server's log when it does not start.
 */
export async function startPrivateServer(program: string, folder: string, options: string[] = []): Promise<LocalDatabase> {
  const version = await versionOf(program)
  const label = `${version} (${program}), data in ${folder}`
  const data = join(folder, version.startsWith('MariaDB') ? 'mariadb' : 'mysql')
  const connectionFile = `${data}.json`

  const shared = await readConnection(connectionFile)
  if (shared) return { url: shared, label: `${label}, shared with the process that started it`, stop: async () => {} }

  if (!existsSync(data)) await initialise(program, data)
  const { server, url } = await start(program, data, options)
  await writeFile(connectionFile, JSON.stringify({ url }), { mode: 0o600 })
  return {
    url,
    label,
    async stop() {
      await rm(connectionFile, { force: true })
      await stop(server)
    },
  }
}

async function versionOf(program: string): Promise<string> {
  const { stdout } = await run(program, ['--no-defaults', '--version'])
  const [number = ''] = stdout.match(/\d+\.\d+\.\d+/) ?? []
  return `${stdout.includes('MariaDB') ? 'MariaDB' : 'MySQL'} ${number}`
}

async function readConnection(file: string): Promise<string | undefined> {
  if (!existsSync(file)) return undefined
  const { url } = JSON.parse(await readFile(file, 'utf8')) as { url: string }
  return (await canConnect(url)) ? url : undefined
}

/** Under another name until it is complete: a killed first start leaves nothing that looks like a database. */
async function initialise(program: string, data: string) {
  const unfinished = `${data}.unfinished`
  await rm(unfinished, { recursive: true, force: true })
  await mkdir(dirname(data), { recursive: true })
  if (data.endsWith('mariadb'))
    await run('mariadb-install-db', [
      '--no-defaults',
      `--datadir=${unfinished}`,
      '--auth-root-authentication-method=normal',
      '--skip-test-db',
      ...asRoot(),
    ])
  else await run(program, ['--no-defaults', '--initialize-insecure', `--datadir=${unfinished}`, ...asRoot()])
  await rename(unfinished, data)
}

async function start(program: string, data: string, options: string[]) {
  const port = await freePort()
  const password = randomBytes(16).toString('hex')
  const log = `${data}.log`
  await writeFile(`${data}.sql`, setUp(password), { mode: 0o600 })
  const server = spawn(
    process.execPath,
    [
      GUARD,
      program,
      '--no-defaults',
      `--datadir=${data}`,
      `--port=${port}`,
      '--bind-address=127.0.0.1',
      '--socket=mysqld.sock',
      '--pid-file=mysqld.pid',
      `--log-error=${log}`,
      `--init-file=${data}.sql`,
      '--skip-name-resolve',
      '--skip-log-bin',
      '--character-set-server=utf8mb4',
      '--loose-mysqlx=OFF',
      '--loose-performance-schema=OFF',
      ...asRoot(),
      ...options,
    ],
    { stdio: ['pipe', 'ignore', 'ignore'], detached: true },
  )
  const url = `mysql://offloop:${password}@127.0.0.1:${port}/offloop`
  await untilReady(server, url, log)
  await rm(`${data}.sql`)
  return { server, url }
}

/** Users from the network need the password; the server's root has none, but only this folder's socket lets it in. */
const setUp = (password: string) => `
CREATE DATABASE IF NOT EXISTS offloop;
CREATE USER IF NOT EXISTS 'offloop'@'%';
ALTER USER 'offloop'@'%' IDENTIFIED BY '${password}';
GRANT ALL ON *.* TO 'offloop'@'%';
`

async function untilReady(server: ChildProcess, url: string, log: string) {
  const deadline = AbortSignal.timeout(START_TIMEOUT_MS)
  while (!(await canConnect(url))) {
    if (server.exitCode !== null || deadline.aborted) {
      await stop(server)
      throw new AppError('unavailable', `The private MySQL server did not start. The end of ${log}:\n${await tail(log)}`)
    }
    await sleep(POLL_MS)
  }
}

async function stop(server: ChildProcess) {
  if (server.exitCode !== null) return
  const exited = once(server, 'exit')
  server.stdin?.end()
  await exited
}

const tail = async (file: string) =>
  existsSync(file) ? (await readFile(file, 'utf8')).trimEnd().split('\n').slice(-8).join('\n') : '(it wrote none)'

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  await once(probe, 'close')
  return typeof address === 'object' && address ? address.port : 0
}

/** Both servers refuse to run as root unless told so by name. */
const asRoot = () => (process.getuid?.() === 0 ? ['--user=root'] : [])
