import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { useProcess } from '../../../test/support/process.ts'
import { request } from '../../../test/support/service.ts'
import { until } from '../../../test/support/until.ts'
import type { Held } from '../watch.ts'

const SERVICE = 'test/support/blocking-service.ts'

async function useBlockingService(env: NodeJS.ProcessEnv = {}) {
  const {
    child,
    output,
    url: listening,
    exitCode,
  } = useProcess(SERVICE, { TIRELESS: 'true', ...env })
  const url = await listening()
  const [, ops = ''] = await until(() => output().match(/"ops":"(.*?)"/), 'it says where')
  const allLines = () =>
    output()
      .split('\n')
      .filter((line) => line.includes('"heldMs"'))
  // A new process may block its event loop by itself, while it compiles.
  for (let index = 0; index < 3; index++) await fetch(`${url}/loop/1`)
  await held(ops)
  const { length } = allLines()
  const lines = () => allLines().slice(length)
  return {
    child,
    url,
    ops,
    exitCode,
    incidents: () => lines().map((line) => JSON.parse(line)),
    incident: async () => JSON.parse(await until(() => lines()[0], 'the incident is logged')),
  }
}

const lineOf = (mark: string) =>
  readFileSync(SERVICE, 'utf8')
    .split('\n')
    .findIndex((line) => line.endsWith(`// ${mark}`)) + 1

describe('what holds the event loop is named, with function, line and request', () => {
  test.each([
    ['a loop', '/loop/1500', 'spin', 'held by the loop', '/loop/:ms'],
    [
      'a loop in a function that was awaited',
      '/after-waiting/1500',
      'spin',
      'held by the loop',
      '/after-waiting/:ms',
    ],
    [
      'a regular expression that backtracks',
      '/expression',
      'matches',
      'held by the expression',
      '/expression',
    ],
  ])('%s, while it lasts', async (_, path, name, mark, route) => {
    const { url, ops, incident } = await useBlockingService()
    const startedAt = Date.now()
    const answer = request(url + path, 'GET', undefined, { 'x-request-id': 'the-one' }).catch(
      () => {},
    )
    const culprit = await until(async () => (await held(ops)).culprit, 'it is named')
    const expected = {
      function: name,
      file: SERVICE,
      line: lineOf(mark),
      requestId: 'the-one',
      route,
    }
    expect(culprit).toEqual(expected)
    expect((await held(ops)).heldMs).toBeGreaterThan(0)
    await answer
    const told = await incident()
    expect(told).toEqual({ at: expect.any(Number), heldMs: expect.any(Number), ...expected })
    expect(Math.abs(told.at - startedAt)).toBeLessThan(10_000)
  })

  test('JSON.parse of 50 MB, which nothing can interrupt, at its end', async () => {
    const { url, incidents } = await useBlockingService()
    // On a busy machine the watchdog may have no core until the parser is done: then it looks too
    // late.
    const { heldMs, ...culprit } = await until(async () => {
      await fetch(`${url}/parse`)
      return incidents().find(({ route }) => route === '/parse')
    }, 'it is named')
    expect(culprit).toMatchObject({
      function: 'parseBigText',
      file: SERVICE,
      line: lineOf('held by the parser'),
    })
    expect(heldMs).toBeGreaterThan(100)
  })

  test('a synchronous read of a file that does not come, at its end', async () => {
    const { url, incident } = await useBlockingService()
    const path = await useFifo()
    const answer = request(`${url}/file?path=${path}`).catch(() => {})
    await sleep(500)
    await writeFile(path, 'at last')
    await answer
    const { heldMs, ...culprit } = await incident()
    expect(culprit).toMatchObject({
      function: 'readWholeFile',
      file: SERVICE,
      line: lineOf('held by the file'),
      route: '/file',
    })
    expect(heldMs).toBeGreaterThan(350)
    expect(heldMs).toBeLessThan(5_000)
  })
})

test('an incident has its whole length, and is told of once', async () => {
  const { url, incidents } = await useBlockingService()
  for (const [index, ms] of [400, 200].entries()) {
    const startedAt = performance.now()
    await fetch(`${url}/loop/${ms}`)
    const elapsedMs = performance.now() - startedAt
    await until(() => incidents().length > index, 'it is told of')
    // Less a heartbeat, and the time without a core.
    expect(incidents()[index].heldMs).toBeGreaterThanOrEqual(ms - 20)
    expect(incidents()[index].heldMs).toBeLessThanOrEqual(elapsedMs + 20)
  }
  expect(incidents()).toHaveLength(2)
})

test('what is short, and an idle loop, is no incident', async () => {
  // Far above what is short: a busy machine itself holds a process up for a tenth of a second.
  const { url, incidents } = await useBlockingService({ WATCHDOG_MS: '500' })
  for (let index = 0; index < 10; index++) await fetch(`${url}/loop/40`)
  await sleep(1_000)
  await fetch(`${url}/loop/800`)
  await until(() => incidents().length > 0, 'the one after them is told of')
  expect(incidents()).toHaveLength(1)
})

test('a process that was stopped was not held by its code', async () => {
  const { child, url, incidents } = await useBlockingService()
  child.kill('SIGSTOP')
  await sleep(500)
  child.kill('SIGCONT')
  await fetch(`${url}/loop/200`)
  await until(() => incidents().length > 0, 'the one after it is told of')
  expect(incidents().map(({ function: name }) => name)).toEqual(['spin'])
})

test('of incidents in a row ten are named, then one more every five seconds, and the others logged all the same', async () => {
  const { url, incidents } = await useBlockingService({ TIRELESS: 'false' })
  const startedAt = performance.now()
  for (let index = 0; index < 14; index++) {
    await fetch(`${url}/loop/200`)
    await until(() => incidents().length > index, 'it is logged')
  }
  const names = incidents().map(({ function: name }) => name)
  expect(names.slice(0, 10)).toEqual(Array.from({ length: 10 }, () => 'spin'))
  const more = Math.ceil((performance.now() - startedAt) / 5_000)
  expect(names.filter((name) => name === 'spin').length).toBeLessThanOrEqual(10 + more)
})

describe('with a threshold of 0', () => {
  test('there are no incidents, and the ops server answers', async () => {
    const { url, ops, incidents } = await useBlockingService({ WATCHDOG_MS: '0' })
    await fetch(`${url}/loop/300`)
    expect((await request(`${ops}/health/live`)).body).toMatchObject({ status: 'ok' })
    expect(incidents()).toEqual([])
  })
})

test('a process with a debugger is left alone', async () => {
  const { output, url: listening } = useProcess(SERVICE, {}, ['--inspect=127.0.0.1:0'])
  const url = await until(async () => output().match(/"url":"(.*?)"/)?.[1], 'it listens')
  await listening()
  await fetch(`${url}/loop/300`)
  await fetch(`${url}/loop/1`)
  expect(output()).not.toContain('"heldMs"')
})

test('it does not hold up the exit', async () => {
  const { child, url, incident, exitCode } = await useBlockingService()
  await fetch(`${url}/loop/200`)
  await incident()
  child.kill('SIGTERM')
  expect(await exitCode).toBe(0)
})

describe('while the event loop is busy in pieces of a tenth of a second, the ops server', () => {
  test('says that the service is ready, from the first probe on', async () => {
    const { url, ops } = await useBlockingService()
    let busy = true
    const load = (async () => {
      while (busy) await fetch(`${url}/loop/100`)
    })()
    await until(async () => (await held(ops)).heldMs > 30, 'it is held')
    const statuses: number[] = []
    for (let probe = 0; probe < 20; probe++)
      statuses.push((await request(`${ops}/health/ready`)).status)
    busy = false
    await load
    expect(statuses).toEqual(Array(20).fill(200))
  })
})

describe('while the event loop is held for 7 s, the ops server', () => {
  test('says what was known last for 5 s, and then that the service is not ready', async () => {
    const { url, ops } = await useBlockingService()
    expect((await request(`${ops}/health/ready`)).status).toBe(200)
    const answer = fetch(`${url}/loop/7000`)
    await until(async () => (await held(ops)).heldMs > 700, 'it is held')
    const readiness = () => request(`${ops}/health/ready`)
    expect((await readiness()).status).toBe(200)
    await until(async () => (await readiness()).status === 503, 'it is not ready')
    expect((await readiness()).body).toMatchObject({
      code: 'unavailable',
      detail: expect.stringMatching(/held for ([5-9]|\d\d)\d\d\d ms$/),
    })
    await answer
    await until(
      async () => (await request(`${ops}/health/ready`)).status === 200,
      'it is ready again',
    )
  })
})

describe('while the event loop is held for longer than the limit of 3 s, the ops server', () => {
  test('answers at once, says how long and by what, and counts the process as dead beyond the limit', async () => {
    const { url, ops } = await useBlockingService()
    expect((await request(`${ops}/health/ready`)).status).toBe(200)
    expect(await page(ops)).toContain('a_figure 1\n')
    const answer = fetch(`${url}/loop/5000`)
    await until(async () => (await held(ops)).culprit, 'it is held')
    const tookMs: number[] = []
    for (let round = 0; round < 10; round++)
      for (const path of ['/health/live', '/health/ready', '/metrics']) {
        const startedAt = performance.now()
        const { status } = await fetch(ops + path)
        tookMs.push(performance.now() - startedAt)
        expect([path, status]).toEqual([path, 200])
      }
    await until(async () => (await held(ops)).heldMs > 800, 'it is held for longer')
    const figures = await page(ops)
    expect(Number(figures.match(/^event_loop_held_seconds (.*)$/m)?.[1])).toBeGreaterThan(0.8)
    expect(Number(figures.match(/^ops_snapshot_age_seconds (.*)$/m)?.[1])).toBeGreaterThan(0.8)
    expect(figures).toContain('a_figure 1\n')
    await until(
      async () => (await request(`${ops}/health/live`)).status === 503,
      'it is held for too long',
    )
    const { body } = await request(`${ops}/health/live`)
    expect(body).toMatchObject({
      code: 'unavailable',
      detail: expect.stringMatching(/held for \d\.\d s by spin \(test\//),
    })
    // The median, because other tests have the cores, too: `npm run bench:watchdog` has the
    // longest.
    expect(tookMs.toSorted((a, b) => a - b).at(Math.floor(tookMs.length / 2))).toBeLessThan(300)
    await answer
    await until(async () => (await request(`${ops}/health/live`)).status === 200, 'it turns again')
    expect((await held(ops)).culprit).toBeUndefined()
  })
})

const held = async (ops: string): Promise<Held> => (await request(`${ops}/health/live`)).body

const page = async (ops: string) => (await fetch(`${ops}/metrics`)).text()

/** Whoever reads it waits for whoever writes it. */
async function useFifo(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-fifo-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const path = join(folder, 'fifo')
  execFileSync('mkfifo', [path])
  return path
}
