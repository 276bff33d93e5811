import { once } from 'node:events'
import { globSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createConnection } from 'mysql2/promise'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  canConnect,
  findFreePort,
  findProgram,
  startPrivateServer,
} from '../../scripts/database/private-server.ts'
import { isAlive, useProcess } from '../support/process.ts'
import { until } from '../support/until.ts'

const program = findProgram() ?? ''

async function useFolder() {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-private-'))
  onTestFinished(() => rm(folder, { recursive: true, maxRetries: 20, retryDelay: 100 }))
  return folder
}

/** Another process that starts a server in `folder`. */
function useOwner(folder: string) {
  const owner = useProcess('test/support/server-owner.ts', { FOLDER: folder })
  return {
    ...owner,
    url: async () => (await owner.printed(/at (\S+)/))[1] as string,
  }
}

describe.runIf(program)('a private server', () => {
  test('keeps its data and its URL from one start to the next', async () => {
    const folder = await useFolder()
    const first = await startPrivateServer(program, folder)
    const connection = await createConnection({ uri: first.url })
    await connection.query('create table kept (id int)')
    await connection.end()
    await first.stop()
    expect(await canConnect(first.url)).toBe(false)

    const second = await startPrivateServer(program, folder)
    onTestFinished(second.stop)
    expect(second.url).toBe(first.url)
    const again = await createConnection({ uri: second.url })
    expect(await again.query('select * from kept')).toHaveProperty([0], [])
    await again.end()
  })

  test('ends with its owner, even one killed with -9, and can be started again', async () => {
    const folder = await useFolder()
    const owner = useOwner(folder)
    const url = await owner.url()
    expect(await canConnect(url)).toBe(true)
    owner.child.kill('SIGKILL')
    await until(async () => !(await canConnect(url)), 'the server is gone')
    const next = await startPrivateServer(program, folder)
    await next.stop()
  })

  test('ends with its owner, even one that somebody had stopped', async () => {
    const folder = await useFolder()
    const owner = useOwner(folder)
    const url = await owner.url()
    const [pidFile = ''] = globSync(join(folder, '*/mysqld.pid'))
    const pid = Number(await readFile(pidFile, 'utf8'))
    process.kill(pid, 'SIGSTOP')
    owner.child.kill('SIGKILL')
    await until(() => !isAlive(pid), 'the server is gone')
    expect(await canConnect(url)).toBe(false)
  })

  test('is shared with whoever comes later', async () => {
    const folder = await useFolder()
    const owner = useOwner(folder)
    const url = await owner.url()
    const guest = await startPrivateServer(program, folder)
    expect([guest.url, guest.label]).toEqual([url, expect.stringContaining('shared')])
    await guest.stop()
    expect(await canConnect(url)).toBe(true)
    owner.child.kill('SIGKILL')
    await until(async () => !(await canConnect(url)), 'the server is gone')
  })

  test('lets nobody in without the password, which only its user can read', async () => {
    const folder = await useFolder()
    const server = await startPrivateServer(program, folder)
    onTestFinished(server.stop)
    for (const user of ['root:', 'offloop:', 'offloop:wrong'])
      expect(await canConnect(server.url.replace(/offloop:[0-9a-f]+/, user))).toBe(false)
    const [file = ''] = globSync(join(folder, '*.json'))
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  test('that cannot start says what its log says', async () => {
    const folder = await useFolder()
    await expect(startPrivateServer(program, folder, ['--no-such-option'])).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/did not start(.|\n)*no-such-option/),
    })
  })
})

test('free ports are free in a row, and none of those that connections are given', async () => {
  const first = await findFreePort(3)
  for (const port of [first, first + 1, first + 2]) {
    const server = createServer().listen(port, '127.0.0.1')
    await once(server, 'listening')
    server.close()
  }
  if (process.platform !== 'linux') return
  const [lowest = ''] = (await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')).split(
    '\t',
  )
  expect(first + 2).toBeLessThan(Number(lowest))
})
