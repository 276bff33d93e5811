import { execFileSync, spawnSync } from 'node:child_process'
import { describe, expect, onTestFinished, test } from 'vitest'
import { findFreePort } from '../scripts/database/private-server.ts'
import { readProcesses } from '../src/supervisor.ts'
import { useDatabase } from './support/database.ts'
import { isAlive, useProcess } from './support/process.ts'
import { useProxy } from './support/proxy.ts'
import { until } from './support/until.ts'
import { hasValkey, useValkey } from './support/valkey.ts'

const BOTH_LISTEN = /"msg":"listening".*"msg":"listening"/s
const FAILED_TO_START = /starting it again.*starting it again/s
const hasPrlimit = spawnSync('prlimit', ['--version']).status === 0

describe.runIf(hasValkey)('npm run serve -- --processes 2', () => {
  test('runs two processes on one port, with the threads divided among them', async () => {
    const { lines, port, opsPort } = await useProcesses({ COMPUTE_THREADS: '3' })
    expect(new Set(lines().map(({ pid }) => pid)).size).toBe(2)
    expect(lines().map(({ threads }) => threads)).toEqual(expect.arrayContaining([1, 2]))
    for (const { url } of lines()) expect(url).toBe(`http://localhost:${port}`)
    for (const each of [opsPort, opsPort + 1]) expect(await isReady(each)).toBe(true)
  })

  test('starts a process again that was killed, while the other one serves', async () => {
    const { lines, port, output } = await useProcesses()
    const [{ pid }] = lines() as [Line]
    process.kill(pid, 'SIGKILL')
    await until(() => !isAlive(pid), 'it is dead')
    await until(() => isReached(port), 'the other one answers')
    await until(() => lines().length === 3, 'another one listens')
    expect(output()).toMatch(/A process ended: starting it again/)
  })

  test('goes on while one cannot start again, until it can', async () => {
    const { url } = await useDatabase()
    let isAway = false
    const { urlOf } = await useProxy(() => (isAway ? 'mysql://127.0.0.1:1' : url))
    const { lines, port, printed } = await useProcesses({ DATABASE_URL: urlOf(url) })
    const [{ pid }] = lines() as [Line]
    isAway = true
    process.kill(pid, 'SIGKILL')
    await printed(FAILED_TO_START)
    await until(() => isReached(port), 'the other one answers')
    isAway = false
    await until(() => lines().length === 3, 'it listens')
  })

  test.runIf(hasPrlimit)('goes on while the system lets none start', async () => {
    const { lines, port, output, printed, child } = await useProcesses()
    const [{ pid }] = lines() as [Line]
    limitFiles(child.pid, 1)
    process.kill(pid, 'SIGKILL')
    await printed(FAILED_TO_START)
    expect(output()).toMatch(/EMFILE/)
    await until(() => isReached(port), 'the other one answers')
    limitFiles(child.pid, 1_000)
    await until(() => lines().length === 3, 'it listens')
  })

  test('stops all of them on SIGTERM, each in order', async () => {
    const { lines, child, exitCode, output } = await useProcesses()
    child.kill('SIGTERM')
    expect(await exitCode).toBe(0)
    for (const { pid } of lines()) expect(isAlive(pid)).toBe(false)
    expect(output().match(/"msg":"stopped"/g)).toHaveLength(2)
  })

  test('ends with 1 when none can start', async () => {
    const { url: VALKEY_URL } = await useValkey()
    const DATABASE_URL = `mysql://root@127.0.0.1:${await findFreePort()}/none`
    const main = start({ VALKEY_URL, DATABASE_URL, PORT: String(await findFreePort()) })
    expect(await main.exitCode).toBe(1)
    expect(main.output()).not.toMatch(/starting it again/)
  })
})

test.each([
  ['push and limits need VALKEY_URL', { PORT: '3000' }, /VALKEY_URL, which is not set/],
  ['a shared port', { VALKEY_URL: 'redis://127.0.0.1:1' }, /set PORT to another than 0/],
])('several processes without %s do not start', async (_, env, message) => {
  const main = start({ DATABASE_URL: 'mysql://root@127.0.0.1:1/none', ...env })
  expect(await main.exitCode).toBe(1)
  expect(main.output()).toMatch(message)
})

test('takes a number from 1 to 256', () => {
  expect(readProcesses([])).toBe(1)
  expect(readProcesses(['--processes', '256'])).toBe(256)
  for (const wrong of ['0', '257', '-1', '1.5', 'all', ''])
    expect(() => readProcesses([`--processes=${wrong}`])).toThrow(/number from 1 to 256/)
  expect(() => readProcesses(['--process', '2'])).toThrow(/--process/)
})

/** How many files and connections a process may have open. */
const limitFiles = (pid: number | undefined, most: number) =>
  execFileSync('prlimit', ['--pid', `${pid}`, `--nofile=${most}:`])

interface Line {
  pid: number
  threads: number
  url: string
}

const start = (env: NodeJS.ProcessEnv) => {
  const main = useProcess('src/main.ts', env, [], undefined, ['--processes', '2'])
  // Its processes end with it, as they do without their supervisor.
  onTestFinished(() => void main.child.kill('SIGKILL'))
  return main
}

async function useProcesses(env: NodeJS.ProcessEnv = {}) {
  const { url: DATABASE_URL } = await useDatabase()
  const { url: VALKEY_URL } = await useValkey()
  const [port, opsPort] = [await findFreePort(), await findFreePort(2)]
  const ports = { PORT: String(port), OPS_PORT: String(opsPort) }
  const main = start({ DATABASE_URL, VALKEY_URL, ...ports, ...env })
  const lines = () =>
    main
      .output()
      .split('\n')
      .filter((line) => line.includes('"msg":"listening"'))
      .map((line): Line => JSON.parse(line))
  await main.printed(BOTH_LISTEN)
  return { ...main, lines, port, opsPort }
}

const isReady = async (port: number) => (await fetch(`http://127.0.0.1:${port}/health/ready`)).ok

const isReached = (port: number) =>
  fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } }).then(
    ({ ok }) => ok,
    () => false,
  )
