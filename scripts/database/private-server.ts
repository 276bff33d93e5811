import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createConnection } from 'mysql2/promise'
import { AppError } from '../../src/errors.ts'
import type { LocalDatabase } from './local-database.ts'

const run = promisify(execFile)

const START_TIMEOUT_MS = 60_000
const POLL_MS = 50
const MIN_PORT = 20_000
const MAX_PORT = 32_768
const GUARD = join(import.meta.dirname, 'guard.ts')
const FOLDERS = [
  ...(process.env['PATH'] ?? '').split(':'),
  '/usr/sbin',
  '/usr/local/sbin',
  '/opt/homebrew/bin',
  '/usr/local/mysql/bin',
]

/**
 * The MySQL or MariaDB server program of this machine. MariaDB's needs two more programs to create
 * its data, which Debian has in different packages.
 */
export function findProgram(): string | undefined {
  const mariadb = findInFolders('mariadbd')
  if (mariadb && findInFolders('mariadb-install-db') && findInFolders('my_print_defaults'))
    return mariadb
  return mariadb ? undefined : findInFolders('mysqld')
}

export const findInFolders = (program: string) =>
  FOLDERS.map((folder) => join(folder, program)).find((path) => existsSync(path))

/** Whether a server accepts our connections. */
export async function canConnect(url: string): Promise<boolean> {
  try {
    const connection = await createConnection({ uri: url, connectTimeout: 2_000 })
    await connection.end()
    return true
  } catch {
    return false
  }
}

/**
 * Starts `program` on a free port of this machine with its data in `folder`, or shares the server
 * that another process runs there. It ends with `stop()`, or when this process does in any way.
 *
 * @param options further options of the server.
 * @throws AppError `unavailable` with the errors in the server's log when it does not start.
 */
export async function startPrivateServer(
  program: string,
  folder: string,
  options: string[] = [],
): Promise<LocalDatabase> {
  const version = await versionOf(program)
  const label = `${version} (${program}), data in ${folder}`
  const data = join(folder, version.startsWith('MariaDB') ? 'mariadb' : 'mysql')
  const connectionFile = `${data}.json`

  const known = await readConnection(connectionFile)
  if (known && (await canConnect(known.href)))
    return {
      url: known.href,
      label: `${label}, shared with the process that started it`,
      stop: async () => {},
    }

  if (!existsSync(data)) await initialise(program, data)
  const url = await chooseUrl(known)
  await writeFile(connectionFile, JSON.stringify({ url }), { mode: 0o600 })
  const server = await start(program, data, url, options)
  return { url: url.href, label, stop: () => stop(server) }
}

async function versionOf(program: string): Promise<string> {
  const { stdout } = await run(program, ['--no-defaults', '--version'])
  const [number = ''] = stdout.match(/\d+\.\d+\.\d+/) ?? []
  return `${stdout.includes('MariaDB') ? 'MariaDB' : 'MySQL'} ${number}`
}

async function readConnection(file: string): Promise<URL | undefined> {
  if (!existsSync(file)) return undefined
  const { url } = JSON.parse(await readFile(file, 'utf8')) as { url: string }
  return new URL(url)
}

/** The same URL as last time, unless its port is taken: other programs may have stored it. */
async function chooseUrl(known?: URL): Promise<URL> {
  const url =
    known ?? new URL(`mysql://offloop:${randomBytes(16).toString('hex')}@127.0.0.1/offloop`)
  if (!known || !(await isFree(Number(known.port)))) url.port = String(await findFreePort())
  return url
}

/** Creates the data under another name, so that a killed first start leaves no half database. */
async function initialise(program: string, data: string) {
  const unfinished = `${data}.unfinished`
  await rm(unfinished, { recursive: true, force: true })
  await mkdir(dirname(data), { recursive: true })
  const temporary = temporaryFolderOf(data)
  await mkdir(temporary, { recursive: true })
  const env = { ...process.env, TMPDIR: temporary }
  if (data.endsWith('mariadb')) {
    const options = ['--auth-root-authentication-method=normal', '--skip-test-db', ...asRoot()]
    await run('mariadb-install-db', ['--no-defaults', `--datadir=${unfinished}`, ...options], {
      env,
    })
  } else
    await run(
      program,
      ['--no-defaults', '--initialize-insecure', `--datadir=${unfinished}`, ...asRoot()],
      { env },
    )
  await rename(unfinished, data)
}

const temporaryFolderOf = (data: string) => `${data}.tmp`

async function start(
  program: string,
  data: string,
  { href, port, password }: URL,
  options: string[],
) {
  const log = `${data}.log`
  const setUpFile = `${data}.sql`
  // Not /tmp: a server deletes there what it takes for its own leftovers.
  const temporary = temporaryFolderOf(data)
  await mkdir(temporary, { recursive: true })
  await writeFile(setUpFile, setUp(password), { mode: 0o600 })
  const server = spawn(
    process.execPath,
    [
      GUARD,
      program,
      '--no-defaults',
      `--datadir=${data}`,
      `--port=${port}`,
      '--bind-address=127.0.0.1',
      `--tmpdir=${temporary}`,
      '--socket=mysqld.sock',
      '--pid-file=mysqld.pid',
      `--log-error=${log}`,
      `--init-file=${setUpFile}`,
      '--skip-name-resolve',
      '--skip-log-bin',
      '--character-set-server=utf8mb4',
      '--loose-mysqlx=OFF',
      '--loose-performance-schema=OFF',
      ...asRoot(),
      ...options,
    ],
    // Not detached: Linux first divides the CPU between sessions (sched_autogroup), so that in its
    // own session the server would compete with our low-priority threads as equals.
    { stdio: ['pipe', 'ignore', 'ignore'] },
  )
  await untilReady(server, href, log)
  await rm(setUpFile)
  return server
}

/** Our user connects by its password, and root only through the socket in the folder. */
const setUp = (password: string) => `
DROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1', ''@'localhost';
CREATE DATABASE IF NOT EXISTS \`offloop\`;
CREATE USER IF NOT EXISTS 'offloop'@'%';
ALTER USER 'offloop'@'%' IDENTIFIED BY '${password}';
GRANT ALL ON *.* TO 'offloop'@'%' WITH GRANT OPTION;
`

async function untilReady(server: ChildProcess, url: string, log: string) {
  const deadline = AbortSignal.timeout(START_TIMEOUT_MS)
  while (!(await canConnect(url))) {
    if (server.exitCode !== null || deadline.aborted) {
      await stop(server)
      throw new AppError(
        'unavailable',
        `The private MySQL server did not start. From ${log}:\n${await errorsIn(log)}`,
      )
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

/** The errors in the server's log or, without any, its end. */
async function errorsIn(file: string): Promise<string> {
  if (!existsSync(file)) return '(there is none)'
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n')
  const errors = lines.filter((line) => /\berror\b/i.test(line))
  return (errors.length > 0 ? errors : lines).slice(-8).join('\n')
}

/**
 * The first of `count` free ports in a row. None of them is one that the system would give to a
 * connection before they are used: Linux has those from 32768 on, macOS from 49152.
 */
export async function findFreePort(count = 1): Promise<number> {
  for (;;) {
    const first = randomInt(MIN_PORT, MAX_PORT - count)
    const ports = Array.from({ length: count }, (_, index) => first + index)
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return first
  }
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer().listen(port, '127.0.0.1')
  try {
    await once(probe, 'listening')
    probe.close()
    await once(probe, 'close')
    return true
  } catch {
    return false
  }
}

/** Both servers refuse to run as root unless told so by name. */
const asRoot = () => (process.getuid?.() === 0 ? ['--user=root'] : [])
