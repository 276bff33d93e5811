import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { describeBlock } from '../blocking-frame.ts'
import type { Blockage } from '../probe-server.ts'
import { Watchdog } from '../watchdog.ts'

const ENTRY = join(import.meta.dirname, 'support/blocking-service.ts')
const FILE = relative(process.cwd(), ENTRY)
const WAIT = { timeout: 30_000, interval: 5 }

function startService(env: NodeJS.ProcessEnv, nodeOptions: string[] = []) {
  const { PATH, NODE_COMPILE_CACHE } = process.env
  const child = spawn(process.execPath, [...nodeOptions, ENTRY], {
    env: { PATH, NODE_COMPILE_CACHE, ...env },
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const exitCode = once(child, 'close').then(([code]) => code)
  const output: string[] = []
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => output.push(String(chunk)))
  const listening = () =>
    vi.waitUntil(() => output.join('').match(/"url":"(.*?)","probes":"(.*?)"/), WAIT)
  return { child, exitCode, output: () => output.join(''), listening }
}

async function useService(env: NodeJS.ProcessEnv = {}) {
  const { child, exitCode, output, listening } = startService(env)
  const [, url = '', probes = ''] = await listening()
  const allLines = () =>
    output()
      .split('\n')
      .filter((line) => line.includes('"blockedMs"'))
  // A new process may block its event loop by itself, while it compiles.
  for (let index = 0; index < 3; index++) await fetch(`${url}/loop/1`)
  await readBlockage(probes)
  const { length } = allLines()
  const blocks = () =>
    allLines()
      .slice(length)
      .map((line) => JSON.parse(line))
  return {
    child,
    exitCode,
    url,
    probes,
    blocks,
    firstBlock: () => vi.waitUntil(() => blocks()[0], WAIT),
  }
}

const lineOf = (mark: string) =>
  readFileSync(ENTRY, 'utf8')
    .split('\n')
    .findIndex((line) => line.endsWith(`// ${mark}`)) + 1

async function get(url: string) {
  const response = await fetch(url)
  return { status: response.status, headers: response.headers, body: await response.json() }
}

const readBlockage = async (probes: string): Promise<Blockage> =>
  (await get(`${probes}/health/live`)).body as Blockage

const readMetrics = async (probes: string) => (await fetch(`${probes}/metrics`)).text()

const untilBlocked = (probes: string, forMs: number) =>
  vi.waitUntil(async () => (await readBlockage(probes)).blockedMs > forMs, WAIT)

describe('the function that blocks the event loop is named, with line and request', () => {
  test.each([
    ['a loop', '/loop/1500', 'spin', 'blocking loop', '/loop/:ms'],
    [
      'a loop in an awaited function',
      '/after-waiting/1500',
      'spin',
      'blocking loop',
      '/after-waiting/:ms',
    ],
    [
      'a regular expression that backtracks',
      '/expression',
      'matches',
      'blocking expression',
      '/expression',
    ],
  ])('%s, while it lasts', async (_, path, name, mark, route) => {
    const { url, probes, firstBlock } = await useService()
    const startedAt = Date.now()
    const answer = fetch(url + path, { headers: { 'x-request-id': 'the-one' } })
    const blockingFrame = await vi.waitUntil(
      async () => (await readBlockage(probes)).blockingFrame,
      WAIT,
    )
    const expected = {
      function: name,
      file: FILE,
      line: lineOf(mark),
      requestId: 'the-one',
      route,
    }
    expect(blockingFrame).toEqual(expected)
    expect((await readBlockage(probes)).blockedMs).toBeGreaterThan(0)
    await answer
    const block = await firstBlock()
    expect(block).toEqual({ at: expect.any(Number), blockedMs: expect.any(Number), ...expected })
    expect(Math.abs(block.at - startedAt)).toBeLessThan(10_000)
  })

  test('JSON.parse of 50 MB, which nothing can interrupt: at or before the line after', async () => {
    const { url, blocks } = await useService()
    // On a busy machine the watchdog may have no core until the parser is done, and samples too
    // late.
    const block = await vi.waitUntil(async () => {
      await fetch(`${url}/parse`)
      return blocks().find(({ inNativeCall }) => inNativeCall)
    }, WAIT)
    expect(block).toMatchObject({ function: 'parseBigText', file: FILE, route: '/parse' })
    expect(block.line).toBe(lineOf('blocking parser') + 1)
    expect(block.blockedMs).toBeGreaterThan(100)
  })

  test('a synchronous read of a file that does not come: at or before the line after', async () => {
    const { url, firstBlock } = await useService()
    const path = await useFifo()
    const answer = fetch(`${url}/file/${encodeURIComponent(path)}`)
    await sleep(500)
    await writeFile(path, 'at last')
    await answer
    const { blockedMs, line, ...block } = await firstBlock()
    expect(block).toMatchObject({
      function: 'readWholeFile',
      file: FILE,
      inNativeCall: true,
      route: '/file/:path',
    })
    expect([lineOf('blocking read'), lineOf('blocking read') + 1]).toContain(line)
    expect(blockedMs).toBeGreaterThan(350)
    expect(blockedMs).toBeLessThan(5_000)
  })
})

test('a block is reported once, with its whole length', async () => {
  const { url, blocks } = await useService()
  for (const [index, ms] of [400, 200].entries()) {
    const startedAt = performance.now()
    await fetch(`${url}/loop/${ms}`)
    const elapsedMs = performance.now() - startedAt
    await vi.waitUntil(() => blocks().length > index, WAIT)
    // Less a heartbeat, and the time without a core.
    expect(blocks()[index].blockedMs).toBeGreaterThanOrEqual(ms - 20)
    expect(blocks()[index].blockedMs).toBeLessThanOrEqual(elapsedMs + 20)
  }
  expect(blocks()).toHaveLength(2)
})

test('what is short, and an idle event loop, is no block', async () => {
  // Far above what is short: a busy machine itself delays a process by a tenth of a second.
  const { url, blocks } = await useService({ THRESHOLD_MS: '500' })
  for (let index = 0; index < 10; index++) await fetch(`${url}/loop/40`)
  await sleep(1_000)
  await fetch(`${url}/loop/800`)
  await vi.waitUntil(() => blocks().length > 0, WAIT)
  expect(blocks()).toHaveLength(1)
})

test('a process that was stopped was not blocked by its code', async () => {
  const { child, url, blocks } = await useService()
  child.kill('SIGSTOP')
  await sleep(500)
  child.kill('SIGCONT')
  await fetch(`${url}/loop/200`)
  await vi.waitUntil(() => blocks().length > 0, WAIT)
  expect(blocks().map(({ function: name }) => name)).toEqual(['spin'])
})

describe('blocks in a row', () => {
  test('that are hardly longer than the threshold are all named, each with its own request', async () => {
    const { url, blocks } = await useService({ THRESHOLD_MS: '50' })
    for (let index = 0; index < 30; index++)
      await fetch(`${url}/loop/${62 + 2 * index}`, { headers: { 'x-request-id': `${index}` } })
    await vi.waitUntil(() => blocks().some(({ requestId }) => requestId === '29'), WAIT)
    const expected = { function: 'spin', file: FILE, line: lineOf('blocking loop') }
    const found = blocks().map(({ at, blockedMs, ...block }) => block)
    // On a busy machine the watchdog may get no core until a block is over.
    const sampled = found.filter(({ requestId }) => requestId !== undefined)
    expect(sampled.length).toBeGreaterThan(25)
    for (const block of sampled)
      expect(block).toEqual({ ...block, ...expected, route: '/loop/:ms' })
    expect(new Set(sampled.map(({ requestId }) => requestId)).size).toBe(sampled.length)
  })

  test('that are too many to sample are reported without function, file and line', async () => {
    const { url, blocks } = await useService({ MAX_SAMPLES: '0' })
    // One sample more is allowed after 0.2 s.
    const block = await vi.waitUntil(async () => {
      await fetch(`${url}/loop/150`)
      return blocks().find(({ function: name }) => name === undefined)
    }, WAIT)
    expect(block).toEqual({ at: expect.any(Number), blockedMs: expect.any(Number) })
    expect(describeBlock(block)).toBe(
      `The event loop was blocked for ${block.blockedMs} ms (not sampled)`,
    )
  })
})

test('with a threshold of 0 no block is reported, and probes are answered', async () => {
  const { url, probes, blocks } = await useService({ THRESHOLD_MS: '0' })
  await fetch(`${url}/loop/300`)
  expect((await get(`${probes}/health/live`)).body).toMatchObject({ status: 'ok' })
  expect(blocks()).toEqual([])
})

test('a process with a debugger is left alone', async () => {
  const { output, listening } = startService({}, ['--inspect=127.0.0.1:0'])
  const [, url] = await listening()
  await fetch(`${url}/loop/300`)
  await fetch(`${url}/loop/1`)
  expect(output()).not.toContain('"blockedMs"')
})

test('the watchdog does not delay the exit', async () => {
  const { child, url, firstBlock, exitCode } = await useService()
  await fetch(`${url}/loop/200`)
  await firstBlock()
  child.kill('SIGTERM')
  expect(await exitCode).toBe(0)
})

describe('the probe server', () => {
  test('answers only GET and HEAD of its three paths', async () => {
    const { probes } = await useService()
    const missing = await get(`${probes}/nowhere?a=1`)
    expect(missing.headers.get('content-type')).toBe('application/problem+json')
    expect(missing).toMatchObject({
      status: 404,
      body: { status: 404, detail: 'There is nothing at /nowhere', instance: '/nowhere' },
    })
    const refused = await fetch(`${probes}/metrics`, { method: 'POST' })
    expect([refused.status, refused.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
    expect((await fetch(`${probes}/metrics`, { method: 'HEAD' })).status).toBe(200)
  })

  test('says that a service is ready from the first probe on, whose event loop is busy in pieces of 0.1 s', async () => {
    const { url, probes } = await useService()
    let busy = true
    const load = (async () => {
      while (busy) await fetch(`${url}/loop/100`)
    })()
    await untilBlocked(probes, 30)
    const statuses: number[] = []
    for (let probe = 0; probe < 20; probe++)
      statuses.push((await get(`${probes}/health/ready`)).status)
    busy = false
    await load
    expect(statuses).toEqual(Array(20).fill(200))
  })

  test('repeats the last readiness for 5 s of a block of 7 s, and then says that the service is not ready', async () => {
    const { url, probes } = await useService()
    const readiness = () => get(`${probes}/health/ready`)
    expect((await readiness()).status).toBe(200)
    const answer = fetch(`${url}/loop/7000`)
    await untilBlocked(probes, 700)
    expect((await readiness()).status).toBe(200)
    await vi.waitUntil(async () => (await readiness()).status === 503, WAIT)
    expect((await readiness()).body).toMatchObject({
      code: 'unavailable',
      status: 503,
      detail: expect.stringMatching(/blocked for ([5-9]|\d\d)\d\d\d ms$/),
    })
    await answer
    await vi.waitUntil(async () => (await readiness()).status === 200, WAIT)
  })

  test('answers at once while the event loop is blocked, says how long and by what, and counts the process as dead beyond the limit of 3 s', async () => {
    const { url, probes } = await useService()
    expect((await get(`${probes}/health/ready`)).status).toBe(200)
    expect(await readMetrics(probes)).toContain('a_metric 1\n')
    const answer = fetch(`${url}/loop/5000`)
    await vi.waitUntil(async () => (await readBlockage(probes)).blockingFrame, WAIT)
    const tookMs: number[] = []
    for (let round = 0; round < 10; round++)
      for (const path of ['/health/live', '/health/ready', '/metrics']) {
        const startedAt = performance.now()
        const { status } = await fetch(probes + path)
        tookMs.push(performance.now() - startedAt)
        expect([path, status]).toEqual([path, 200])
      }
    await untilBlocked(probes, 800)
    const metrics = await readMetrics(probes)
    const read = (name: string) => Number(metrics.match(new RegExp(`^${name} (.*)$`, 'm'))?.[1])
    expect(read('nodejs_eventloop_current_block_seconds')).toBeGreaterThan(0.8)
    expect(read('metrics_snapshot_age_seconds')).toBeGreaterThan(0.8)
    expect(metrics).toContain('a_metric 1\n')
    const liveness = () => get(`${probes}/health/live`)
    await vi.waitUntil(async () => (await liveness()).status === 503, WAIT)
    expect((await liveness()).body).toMatchObject({
      code: 'unavailable',
      status: 503,
      detail: expect.stringMatching(/blocked for \d\.\d s by spin \(.*blocking-service\.ts:/),
    })
    // The median, because other tests have the cores, too: the benchmark has the longest.
    expect(tookMs.toSorted((a, b) => a - b).at(Math.floor(tookMs.length / 2))).toBeLessThan(300)
    await answer
    await vi.waitUntil(async () => (await liveness()).status === 200, WAIT)
    expect((await readBlockage(probes)).blockingFrame).toBeUndefined()
  })
})

/** Reading it waits until somebody writes it. */
async function useFifo(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'loopwatch-fifo-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const path = join(folder, 'fifo')
  execFileSync('mkfifo', [path])
  return path
}

test('flush() resolves even if the thread ends meanwhile, or has ended', async () => {
  const watchdog = await Watchdog.open({ thresholdMs: 100, onBlock() {} })
  const flushed = watchdog.flush()
  await watchdog[Symbol.asyncDispose]()
  await flushed
  await watchdog.flush()
})
