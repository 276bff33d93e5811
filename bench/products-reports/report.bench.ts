import { fork } from 'node:child_process'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { atMost, type Bench } from '../support/bench.ts'
import { end, nextMessage } from '../support/child.ts'
import { canKeepAwake, keepAwake } from '../support/cores.ts'
import { openBenchDatabase } from '../support/database.ts'
import { machine } from '../support/machine.ts'
import { isProberRealTime, type Prober, startProber } from '../support/prober.ts'
import { type App, readMetric, type Server, startApp } from '../support/servers.ts'
import { median, percentile } from '../support/statistics.ts'
import { number } from '../support/table.ts'
import type { BareOrder, BareResult } from './bare.ts'
import { cancel, forgetPeak, peakMiB, untilReport, upload } from './client.ts'
import { ensureSalesFile } from './sales.ts'

const SETTINGS = {
  bytes: 1024 ** 3,
  memoryMb: 256,
  lightPath: '/v1/products/500',
  lightPerSecond: 200,
  warmUpMs: 4_000,
  /** One for each round: a report of the same bytes and columns would reuse the one before. */
  groupBy: ['region', 'product', 'customer'],
  value: 'total',
  /** Into the report; a trial for each. */
  cancelAfterMs: [1_000, 3_000, 9_000],
} as const

const DIRECTORY = join(import.meta.dirname, '../../.data/bench')
const BARE_TIMEOUT_MS = 300_000
const LEAD_IN_MS = 300
/** Of a bare run's time: the report still runs when the last light request is sent. */
const PROBED_SHARE = 0.85
const POLL_MS = 10

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

interface Cancelled {
  afterMs: number
  answerMs: number
  freeAfterMs: number
  filesGoneAfterMs: number
  state: string
}

interface ReportFigures {
  rounds: Round[]
  cancelled: Cancelled[]
}

export const bench: Bench<ReportFigures> = {
  description: 'a CSV of 1 GiB summarised in 256 MiB, beside DuckDB; three minutes, 5 GB of disk',
  packages: ['@duckdb/node-api'],

  async run({ started, progress }) {
    const file = join(DIRECTORY, 'sales.csv')
    progress.next(`Writing ${file}, unless it is there`)
    await ensureSalesFile(file, SETTINGS.bytes)
    const database = started.use(await openBenchDatabase())
    const folder = join(DIRECTORY, 'reports')
    await rm(folder, { recursive: true, force: true })
    await mkdir(folder, { recursive: true })
    started.defer(() => rm(folder, { recursive: true }))
    const env = { REPORT_DIR: folder, REPORT_MEMORY_MB: String(SETTINGS.memoryMb) }
    const app = started.use(await startApp(database.url, machine.cores, { env }))
    const other = started.use(
      await startApp(database.url, 1, { env: { ...env, JOBS_QUEUES: 'off' } }),
    )
    const prober = started.use(startProber())
    await probe(prober, app, SETTINGS.warmUpMs)

    const rounds: Round[] = []
    for (const groupBy of SETTINGS.groupBy) {
      progress.next(`a report by ${groupBy}`)
      rounds.push(await measureRound(groupBy, file, app, prober))
    }
    const cancelled: Cancelled[] = []
    for (const afterMs of SETTINGS.cancelAfterMs) {
      progress.next(`a report is cancelled after ${afterMs} ms`)
      cancelled.push(await measureCancel(file, afterMs, app, other, join(folder, 'spill')))
    }
    return {
      tables: [
        { title: 'Reports', rows: rounds },
        { title: 'Cancelled by another process', rows: cancelled },
      ],
      figures: {
        versions: { database: database.version },
        settings: {
          ...SETTINGS,
          threads: machine.cores,
          proberRealTime: isProberRealTime,
          coresKeptAwake: canKeepAwake,
        },
        rounds,
        cancelled,
      },
      targets: [
        atMost('resident memory, MiB', Math.max(...pick(rounds, 'peakMiB')), 700),
        atMost('time, × of DuckDB alone', median(pick(rounds, 'timesBare')), 1.3),
        atMost('light p99, × of idle', median(pick(rounds, 'timesIdle')), 2),
        atMost(
          'cancel from another process, ms',
          Math.max(...cancelled.map(({ freeAfterMs }) => freeAfterMs)),
          1_500,
        ),
      ],
    }
  },

  summarise: ({ rounds }) => [
    [
      'a CSV of 1 GiB summarised in 256 MiB',
      `${number(median(pick(rounds, 'timesBare')), 2)} × DuckDB alone`,
      `p99 of a light endpoint ${number(median(pick(rounds, 'busyP99Ms')), 1)} ms, idle ${number(median(pick(rounds, 'idleP99Ms')), 1)} ms`,
    ],
  ],
}

const pick = (rounds: Round[], key: Exclude<keyof Round, 'groupBy'>) =>
  rounds.map((round) => round[key])

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
  const { latenciesMs, failed } = await prober.probe({
    url: app.url + lightPath,
    perSecond,
    startInMs: LEAD_IN_MS,
    durationMs: Math.round(durationMs / 100) * 100,
  })
  if (failed > 0) throw new Error(`${failed} light requests failed`)
  return percentile(latenciesMs, 0.99)
}

async function runBare(order: BareOrder): Promise<BareResult> {
  const child = fork(join(import.meta.dirname, 'bare.ts'))
  try {
    child.send(order)
    return await nextMessage<BareResult>(child, BARE_TIMEOUT_MS)
  } finally {
    await end(child)
  }
}

/** From the moment when another process is asked to cancel. */
async function measureCancel(
  file: string,
  afterMs: number,
  app: App,
  other: Server,
  spill: string,
): Promise<Cancelled> {
  const { id } = await upload(app.url, 'groupBy=channel', file)
  await untilReport(app.url, id, ({ state }) => state === 'running')
  await sleep(afterMs)
  const askedAt = performance.now()
  await cancel(other.url, id)
  const answerMs = performance.now() - askedAt
  while ((await readMetric(app.opsUrl, 'compute_threads_busy')) > 0) await sleep(POLL_MS)
  const freeAfterMs = performance.now() - askedAt
  while ((await readdir(spill)).length > 0) await sleep(POLL_MS)
  const filesGoneAfterMs = performance.now() - askedAt
  const { state } = await untilReport(app.url, id, () => true)
  return { afterMs, answerMs, freeAfterMs, filesGoneAfterMs, state }
}
