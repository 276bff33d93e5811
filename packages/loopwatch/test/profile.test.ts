import { once } from 'node:events'
import { url as inspectorUrl } from 'node:inspector'
import { relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { expect, onTestFinished, test } from 'vitest'
import type { Block } from '../blocking-frame.ts'
import { Watchdog } from '../watchdog.ts'

const FILE = relative(process.cwd(), import.meta.filename)
const WORKER = new URL('./support/spinning-worker.ts', import.meta.url)
/** Ends nothing. */
const { signal } = new AbortController()
/** Tests end a recording of this length by a signal. */
const TOO_LONG_MS = 600_000

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string }; children?: number[] }[]
  /** In microseconds of the clock of `process.hrtime`. */
  startTime: number
  endTime: number
  samples: number[]
  timeDeltas: number[]
  folder: string
}

async function openWatchdog() {
  const blocks: Block[] = []
  const watchdog = await Watchdog.open({
    thresholdMs: 100,
    onBlock: (block) => blocks.push(block),
  })
  onTestFinished(() => watchdog[Symbol.asyncDispose]())
  watchdog.start()
  const record = async (options: Partial<Parameters<Watchdog['profile']>[0]> = {}) =>
    parse(await watchdog.profile({ durationMs: 500, signal, ...options }))
  return { watchdog, record, blocks }
}

const parse = (bytes: Uint8Array): CpuProfile => JSON.parse(new TextDecoder().decode(bytes))

/** The function with the most self time. */
function findWidest({ nodes, samples, timeDeltas }: CpuProfile) {
  const times = new Map<number, number>()
  for (const [index, id] of samples.entries())
    times.set(id, (times.get(id) ?? 0) + (timeDeltas[index] ?? 0))
  const [widest] = [...times].sort(([, one], [, other]) => other - one)
  return nodes.find(({ id }) => id === widest?.[0])?.callFrame
}

/** In CPU time of the thread: on a busy machine it gets only a part of a core. */
function spin(ms: number) {
  const since = process.threadCpuUsage()
  let used = process.threadCpuUsage(since)
  while (used.user + used.system < ms * 1_000) used = process.threadCpuUsage(since)
}

const readMicroseconds = () => Number(process.hrtime.bigint() / 1_000n)

async function startSpinning(name: string) {
  const worker = new Worker(WORKER, { name })
  onTestFinished(() => void worker.terminate())
  worker.postMessage('spin')
  await once(worker, 'message')
  return worker
}

test('the event loop is profiled while it is blocked, and the block is named all the same', async () => {
  const { watchdog, record, blocks } = await openWatchdog()
  const recording = record()
  spin(2_000)
  const unblockedAt = readMicroseconds()
  const profile = await recording
  expect(profile.endTime).toBeLessThan(unblockedAt)
  expect(findWidest(profile)?.functionName).toMatch(/^spin|threadCpuUsage$/)
  expect(profile.nodes.map(({ callFrame }) => callFrame.url)).toContain(
    pathToFileURL(import.meta.filename).href,
  )
  await watchdog.flush()
  expect(blocks).toContainEqual(expect.objectContaining({ function: 'spin', file: FILE }))
})

test('a profile is whole: every node can be reached, and every sample has its node and time', async () => {
  const { record } = await openWatchdog()
  const recording = record()
  spin(700)
  const { nodes, samples, timeDeltas, startTime, endTime, folder } = await recording
  const known = new Set(nodes.map(({ id }) => id))
  const reached = new Set(nodes.flatMap(({ children = [] }) => children))
  expect(known.difference(reached)).toEqual(new Set([nodes[0]?.id]))
  expect(reached.difference(known)).toEqual(new Set())
  expect(new Set(samples).difference(known)).toEqual(new Set())
  expect(timeDeltas).toHaveLength(samples.length)
  expect(endTime - startTime).toBeGreaterThanOrEqual(500_000)
  expect(fileURLToPath(folder)).toBe(`${process.cwd()}/`)
})

test('a worker thread is profiled in a task that never ends, even while the event loop is blocked', async () => {
  const { record } = await openWatchdog()
  const other = new Worker(WORKER, { name: 'other' })
  onTestFinished(() => void other.terminate())
  await startSpinning('busy')
  for (const blockedMs of [0, 1_000]) {
    const recording = record({ thread: 'busy' })
    spin(blockedMs)
    const profile = await recording
    expect(findWidest(profile)?.functionName).toMatch(/^spinForever|threadCpuUsage$/)
    const urls = profile.nodes.map(({ callFrame }) => callFrame.url)
    expect(urls).toContain(WORKER.href)
    expect(urls).not.toContain(pathToFileURL(import.meta.filename).href)
  }
})

test('ended early, a profile has what came before', async () => {
  const { record } = await openWatchdog()
  const ending = new AbortController()
  setTimeout(() => ending.abort(), 300)
  const { startTime, endTime } = await record({ durationMs: TOO_LONG_MS, signal: ending.signal })
  expect(endTime - startTime).toBeLessThan(60_000_000)
  const { samples } = await record({ durationMs: TOO_LONG_MS, signal: AbortSignal.abort() })
  expect(samples.length).toBeLessThan(1_000)
})

test('`endProfile` ends the recording, if there is one', async () => {
  const { watchdog, record } = await openWatchdog()
  expect(watchdog.endProfile()).toBe(false)
  const recording = record({ durationMs: TOO_LONG_MS })
  expect(watchdog.endProfile()).toBe(true)
  expect((await recording).nodes.length).toBeGreaterThan(0)
  expect(watchdog.endProfile()).toBe(false)
})

test('there is one profile at a time', async () => {
  const { record } = await openWatchdog()
  const ending = new AbortController()
  const first = record({ durationMs: TOO_LONG_MS, signal: ending.signal })
  await expect(record()).rejects.toMatchObject({ name: 'ProfileError', code: 'conflict' })
  ending.abort()
  await first
  await record()
})

test('a profile of a thread that exits fails, and so does one of a thread that is not there', async () => {
  const { record } = await openWatchdog()
  const worker = await startSpinning('busy')
  const recording = record({ thread: 'busy', durationMs: TOO_LONG_MS })
  setTimeout(() => worker.terminate(), 300)
  await expect(recording).rejects.toThrow('The thread busy exited while it was profiled')
  await expect(record({ thread: 'busy' })).rejects.toThrow('There is no thread busy')
  expect((await record()).samples.length).toBeGreaterThan(0)
})

test('profiles end with the watchdog', async () => {
  const { watchdog, record } = await openWatchdog()
  const recording = record({ durationMs: TOO_LONG_MS })
  setTimeout(() => watchdog[Symbol.asyncDispose](), 300)
  await expect(recording).rejects.toThrow('The watchdog has ended')
  await expect(record()).rejects.toThrow('The watchdog has ended')
})

test('a profile opens no debugger, under which nothing would be watched', async () => {
  const { record } = await openWatchdog()
  const recording = record()
  spin(200)
  expect(inspectorUrl()).toBeUndefined()
  await recording
})
