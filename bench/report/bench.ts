import '../../scripts/load-env.ts'
import { fork } from 'node:child_process'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { end, fileHere, nextMessage } from '../child.ts'
import { openBenchDatabase } from '../database.ts'
import { interruption } from '../interruption.ts'
import { canKeepAwake, keepAwake } from '../keep-awake.ts'
import { machine, versionsOf } from '../machine.ts'
import { type Server, startApp } from '../servers.ts'
import { isProberRealTime, type Prober, startProber } from '../start-prober.ts'
import { median, percentile } from '../statistics.ts'
import { writeResultJson } from '../write-result.ts'
import type { BareOrder, BareResult } from './bare.ts'
import { busyThreads, cancel, untilReport, upload } from './client.ts'
import { forgetPeak, peakMiB } from './memory.ts'
import { ensureSalesFile } from './sales.ts'

/**
 * `npm run bench:report`: a CSV of 1 GiB summarised in 256 MiB while a light endpoint is timed,
 * beside DuckDB's own run of the same queries; and how fast a running report is cancelled from
 * another process.
 */
const SETTINGS = {
  bytes: 1024 ** 3,
  memoryMb: 256,
  lightPath: '/v1/products/500',
  lightPerSecond: 200,
  warmUpMs: 4_000,
  /**
   * One for each round, because a report of the same bytes and columns would reuse the one before.
   */
  groupBy: ['region', 'product', 'customer'],
  value: 'total',
  /** Into the report; a trial for each. */
  cancelAfterMs: [1_000, 3_000, 9_000],
} as const

const DIRECTORY = fileHere('../.data/bench')
const BARE_TIMEOUT_MS = 300_000
const LEAD_IN_MS = 300
/**
 * Of the time that a bare run takes: the report is still at it when the last light request is sent.
 */
const PROBED_SHARE = 0.85

interface Round {
  groupBy: string
  uploadMs: number
  bareMs: number
  reportMs: number
  timesBare: number
  peakMiB: number
  idleP99Ms: number
  busyP99Ms: number
  timesIdle: number
}

await using started = new AsyncDisposableStack()
const results = await Promise.race([bench(), interruption()])
console.table(results.rounds)
console.table(results.cancelled)
console.table(results.targets)
writeResultJson('report.json', results)

async function bench() {
  const file = join(DIRECTORY, 'sales.csv')
  console.log(`Writing ${file}, unless it is there`)
  await ensureSalesFile(file, SETTINGS.bytes)
  const database = started.use(await openBenchDatabase())
  const reportDirectory = join(DIRECTORY, 'reports')
  await rm(reportDirectory, { recursive: true, force: true })
  await mkdir(reportDirectory, { recursive: true })
  started.defer(() => rm(reportDirectory, { recursive: true }))
  const settings = { REPORT_DIR: reportDirectory, REPORT_MEMORY_MB: String(SETTINGS.memoryMb) }
  const app = started.use(await startApp(database.url, machine.cores, { env: settings }))
  const other = started.use(
    await startApp(database.url, 1, { env: { ...settings, JOBS_CONCURRENCY: '0' } }),
  )
  const prober = started.use(startProber())
  await probe(prober, app, SETTINGS.warmUpMs)

  const rounds: Round[] = []
  for (const groupBy of SETTINGS.groupBy) {
    rounds.push(await measureRound(groupBy, file, app, prober))
    console.log(rounds.at(-1))
  }
  const cancelled = []
  for (const afterMs of SETTINGS.cancelAfterMs)
    cancelled.push(await measureCancel(file, afterMs, app, other, join(reportDirectory, 'spill')))
  return {
    measuredAt: new Date().toISOString(),
    machine,
    versions: { ...versionsOf(['@duckdb/node-api']), database: database.version },
    settings: {
      ...SETTINGS,
      threads: machine.cores,
      proberRealTime: isProberRealTime,
      coresKeptAwake: canKeepAwake,
    },
    rounds,
    cancelled,
    targets: targetsOf(rounds, Math.max(...cancelled.map(({ freeAfterMs }) => freeAfterMs))),
  }
}

async function measureRound(
  groupBy: string,
  file: string,
  app: Server,
  prober: Prober,
): Promise<Round> {
  const { memoryMb, value } = SETTINGS
  const bare = await runBare({ file, directory: DIRECTORY, memoryMb, groupBy, value })
  const idleP99Ms = await probeIdle(prober, app, bare.ms * PROBED_SHARE)
  forgetPeak(app.pid)
  const uploadedAt = performance.now()
  const { id } = await upload(app.url, `groupBy=${groupBy}&value=${value}`, file)
  const uploadMs = performance.now() - uploadedAt
  await untilReport(app.url, id, ({ state }) => state === 'running')
  const busyP99Ms = await probe(prober, app, bare.ms * PROBED_SHARE)
  const report = await untilReport(app.url, id, ({ state }) => state === 'succeeded')
  if (report.result?.rows !== bare.rows)
    throw new Error(`${report.result?.rows} rows, but ${bare.rows} by DuckDB alone`)
  const reportMs = Date.parse(report.finishedAt ?? '') - Date.parse(report.startedAt ?? '')
  const memory = peakMiB(app.pid)
  await cancel(app.url, id)
  return {
    groupBy,
    uploadMs,
    bareMs: bare.ms,
    reportMs,
    timesBare: reportMs / bare.ms,
    peakMiB: memory,
    idleP99Ms,
    busyP99Ms,
    timesIdle: busyP99Ms / idleP99Ms,
  }
}

async function probeIdle(prober: Prober, app: Server, durationMs: number): Promise<number> {
  await using _awake = keepAwake(machine.cores)
  return await probe(prober, app, durationMs)
}

/** The p99 of the light endpoint. */
async function probe(prober: Prober, app: Server, durationMs: number): Promise<number> {
  const { lightPath, lightPerSecond: perSecond } = SETTINGS
  const order = {
    url: app.url + lightPath,
    perSecond,
    startInMs: LEAD_IN_MS,
    durationMs: Math.round(durationMs / 100) * 100,
  }
  const { latenciesMs, failed } = await prober.probe(order)
  if (failed > 0) throw new Error(`${failed} light requests failed`)
  return percentile(latenciesMs, 0.99)
}

async function runBare(order: BareOrder): Promise<BareResult> {
  const child = fork(fileHere('report/bare.ts'))
  try {
    child.send(order)
    return await nextMessage<BareResult>(child, BARE_TIMEOUT_MS)
  } finally {
    await end(child)
  }
}

/**
 * From the moment that another process is asked to cancel: until the thread is free, and until the
 * files are gone.
 */
async function measureCancel(
  file: string,
  afterMs: number,
  app: Server,
  other: Server,
  spill: string,
) {
  const { id } = await upload(app.url, 'groupBy=channel', file)
  await untilReport(app.url, id, ({ state }) => state === 'running')
  await sleep(afterMs)
  const askedAt = performance.now()
  await cancel(other.url, id)
  const answerMs = performance.now() - askedAt
  while ((await busyThreads(app.url)) > 0) await sleep(10)
  const freeAfterMs = performance.now() - askedAt
  while ((await readdir(spill)).length > 0) await sleep(10)
  const filesGoneAfterMs = performance.now() - askedAt
  const { state } = await untilReport(app.url, id, () => true)
  return { afterMs, answerMs, freeAfterMs, filesGoneAfterMs, state }
}

function targetsOf(rounds: Round[], freeAfterMs: number) {
  const most = (pick: (round: Round) => number) => Math.max(...rounds.map(pick))
  const middle = (pick: (round: Round) => number) => median(rounds.map(pick))
  const target = (what: string, value: number, atMost: number) => ({
    what,
    value,
    atMost,
    met: value <= atMost,
  })
  return [
    target(
      'resident memory, MiB',
      most(({ peakMiB }) => peakMiB),
      700,
    ),
    target(
      'time, × of DuckDB alone',
      middle(({ timesBare }) => timesBare),
      1.3,
    ),
    target(
      'light p99, × of idle',
      middle(({ timesIdle }) => timesIdle),
      2,
    ),
    target('cancel from another process, ms', freeAfterMs, 1_500),
  ]
}
