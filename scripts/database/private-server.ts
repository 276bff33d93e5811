import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
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
 * The MySQL or MariaDB server program of this machine, if it has one. MariaDB's counts only with
 * the two programs that lay out its data: Debian has the second one in another package than the
 * server.
 */
export function findProgram(): string | undefined {
  const mariadb = findInFolders('mariadbd')
  if (mariadb && findInFolders('mariadb-install-db') && findInFolders('my_print_defaults'))
    return mariadb
  return mariadb ? undefined : findInFolders('mysqld')
}

const findInFolders = (program: string) =>
  FOLDERS.map((folder) => join(folder, program)).find((path) => existsSync(path))

/**
 * Starts `program` as a private child on a free port, reachable from this machine only, with its
 * data in `folder`. It ends with `stop()`, or when this process does, however that ends. A server
 * that another process runs on the same folder is shared.
 *
 * @param options further server options, such as those that trade durability for speed in tests.
 * @throws AppError with the end of the server's log when it does not start.
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

/**
 * The one of the last time, so that other programs may keep it, unless its port is taken by now.
 */
async function chooseUrl(known?: URL): Promise<URL> {
  const url =
    known ?? new URL(`mysql://offloop:${randomBytes(16).toString('hex')}@127.0.0.1/offloop`)
  url.port = String((known && (await bindable(Number(known.port)))) || (await bindable(0)))
  return url
}

/**
 * Under another name until it is complete: a killed first start leaves nothing that looks like a
 * database.
 */
async function initialise(program: string, data: string) {
  const unfinished = `${data}.unfinished`
  await rm(unfinished, { recursive: true, force: true })
  await mkdir(dirname(data), { recursive: true })
  // Its own, as in `start`.
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
  // Its own: a server that starts deletes what it takes for leftovers of itself, and /tmp may have
  // those of another.
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
    // Not detached: Linux shares the CPU out between sessions first (sched_autogroup), and in a
    // session of its own the server would wait for our low-priority threads as if they were its
    // equals.
    { stdio: ['pipe', 'ignore', 'ignore'] },
  )
  await untilReady(server, href, log)
  await rm(setUpFile)
  return server
}

/**
 * From the network only our user gets in, by its password; the server's root only by the socket in
 * this folder.
 */
const setUp = (password: string) => `
DROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1', ''@'localhost';
CREATE DATABASE IF NOT EXISTS \`offloop\`;
CREATE USER IF NOT EXISTS 'offloop'@'%';
ALTER USER 'offloop'@'%' IDENTIFIED BY '${password}';
GRANT ALL ON *.* TO 'offloop'@'%';
`

async function untilReady(server: ChildProcess, url: string, log: string) {
  const deadline = AbortSignal.timeout(START_TIMEOUT_MS)
  while (!(await canConnect(url))) {
    if (server.exitCode !== null || deadline.aborted) {
      await stop(server)
      throw new AppError(
        'unavailable',
        `The private MySQL server did not start. The end of ${log}:\n${await tail(log)}`,
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

const tail = async (file: string) =>
  existsSync(file)
    ? (await readFile(file, 'utf8')).trimEnd().split('\n').slice(-8).join('\n')
    : '(it wrote none)'

/** The port, or any free one for 0; undefined when it is taken. */
async function bindable(port: number): Promise<number | undefined> {
  const probe = createServer().listen(port, '127.0.0.1')
  try {
    await once(probe, 'listening')
    return (probe.address() as AddressInfo).port
  } catch {
    return undefined
  } finally {
    probe.close()
  }
}

/** Both servers refuse to run as root unless told so by name. */
const asRoot = () => (process.getuid?.() === 0 ? ['--user=root'] : [])
