import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, onTestFinished, test } from 'vitest'
import { useDatabase } from '../../support/database.ts'
import { childrenOf, useProcess } from '../../support/process.ts'
import { accept, readReport, slowCsv, untilFinished } from '../../support/reports.ts'
import { request, untilThreadsFree } from '../../support/service.ts'
import { until } from '../../support/until.ts'

const TIMEOUT_MS = 120_000
const MAX_PEAK_MIB = 400

/** A service of its own, which may be ended. */
async function useRunner() {
  const { url: DATABASE_URL } = await useDatabase()
  const directory = await mkdtemp(join(tmpdir(), 'offloop-bounds-'))
  onTestFinished(() => rm(directory, { recursive: true, force: true }))
  const service = useProcess('src/main.ts', {
    DATABASE_URL,
    REPORT_DIR: directory,
    COMPUTE_THREADS: '2',
  })
  return { ...service, url: await service.url(), spill: join(directory, 'spill') }
}

/**
 * Few rows, each of which is long: for a long time DuckDB's sniffer could not be interrupted over
 * them.
 */
const longRows = (megabytes: number) =>
  gzipSync(`id,t\n${`1,${'x'.repeat(40_000)}\n`.repeat(megabytes * 25)}`, { level: 1 })

describe('a report that is cancelled, or whose service is stopped, ends in every phase', () => {
  test.each([
    ['before it has begun', 0],
    ['while the file is read', 0.02],
    ['while DuckDB reads it', 0.31],
    ['while columns are summarised', 0.61],
  ])(
    '%s',
    async (_, progress) => {
      const { url, opsUrl, spill, child } = await useRunner()
      for (const file of [longRows(60), slowCsv(20)]) {
        const { id } = await accept(url, file)
        await until(
          async () => (await isPast(url, id, progress)) || undefined,
          `it is at ${progress}`,
          TIMEOUT_MS,
        )
        await request(`${url}/v1/reports/${id}`, 'DELETE')
        await until(
          async () => (await readdir(spill).catch(() => [])).length === 0,
          'its folder is gone',
        )
        await untilThreadsFree(opsUrl())
      }
      const { id } = await accept(url, 'a,b\n1,2\n')
      expect((await untilFinished(url, id, TIMEOUT_MS)).state).toBe('succeeded')
      expect(child.exitCode).toBeNull()
    },
    TIMEOUT_MS,
  )

  test(
    'and SIGTERM does not wait for it',
    async () => {
      const { url, child, exitCode } = await useRunner()
      const { id } = await accept(url, longRows(200))
      await until(async () => (await isPast(url, id, 0.02)) || undefined, 'it runs', TIMEOUT_MS)
      child.kill('SIGTERM')
      expect(await exitCode).toBe(0)
    },
    TIMEOUT_MS,
  )
})

describe.runIf(process.platform === 'linux')('the memory of a report is bounded', () => {
  test.each<[string, string, number]>([
    ['one column too few', 'x\n', 3_000_000],
    ['one column too many', '1,2,3\n', 500_000],
    ['something after a quote', '"x"y,1\n', 500_000],
  ])(
    'whatever is rejected: %s',
    async (_, row, times) => {
      const { url, child } = await useRunner()
      const { id } = await accept(
        url,
        gzipSync(`a,b\n${'1,2\n'.repeat(10)}${row.repeat(times)}`, { level: 1 }),
      )
      const { result } = await untilFinished(url, id, TIMEOUT_MS)
      expect([result?.rows, result?.rejected.rows, result?.rejected.first.length]).toEqual([
        10,
        times,
        20,
      ])
      expect(childrenPeakMib(child.pid as number)).toBeLessThan(MAX_PEAK_MIB)
    },
    TIMEOUT_MS,
  )

  test.each<[string, number, number, number, string]>([
    ['of long fields', 1_500, 2, 40_000, ''],
    ['of fields that take half of the longest row', 120, 2, 490_000, ''],
    ['of many columns', 4_500, 199, 200, ''],
    ['of many columns whose fields are short', 25_000, 199, 20, ''],
    ['of many columns whose fields are long', 500, 199, 900, ''],
    ['of many columns with four bytes for a character', 1_200, 199, 20, '😀'.repeat(180)],
  ])(
    'whatever its rows are made of: %s',
    async (_, rows, columns, fieldBytes, padding) => {
      const { url, child } = await useRunner()
      const { id } = await accept(url, randomRows(rows, columns, fieldBytes, padding))
      const { result, error } = await untilFinished(url, id, TIMEOUT_MS)
      expect([error, result?.rows, result?.columns.at(-1)?.distinct]).toEqual([null, rows, rows])
      expect(childrenPeakMib(child.pid as number)).toBeLessThan(MAX_PEAK_MIB)
    },
    TIMEOUT_MS,
  )
})

/** No two fields are alike, and none can be compressed but for the padding. */
function randomRows(rows: number, columns: number, fieldBytes: number, padding: string): string {
  const rowOf = () => {
    const text = randomBytes(columns * fieldBytes).toString('base64url')
    const fields = Array.from(
      { length: columns },
      (_, index) => text.slice(index * fieldBytes, (index + 1) * fieldBytes) + padding,
    )
    return fields.join(',')
  }
  const header = Array.from({ length: columns }, (_, index) => `c${index}`).join(',')
  return [header, ...Array.from({ length: rows }, rowOf), ''].join('\n')
}

async function isPast(url: string, id: string, progress: number): Promise<boolean> {
  const report = await readReport(url, id)
  return report.progress >= progress || report.state === 'succeeded'
}

function childrenPeakMib(pid: number): number {
  const peaks = childrenOf(pid).map(peakMib)
  expect(peaks.length).toBeGreaterThan(0)
  return Math.max(...peaks)
}

const peakMib = (pid: number) =>
  Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
