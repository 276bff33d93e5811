import { expect } from 'vitest'
import type { Report } from '../../src/features/reports/contract.ts'
import { AS_OPERATOR } from './operator.ts'
import { request } from './service.ts'
import { until } from './until.ts'

const KINDS_OF_WEATHER = ['rain', 'sun', 'sun', 'fog', 'drizzle', 'snow']
const STATES = ['CA', 'TX', 'NY', 'AK', 'WA', '']

/**
 * Tables such as people upload, the same ones every time: dates, numbers, words, quoted commas and
 * empty cells.
 */
const TABLES = {
  weather: {
    header: 'date,precipitation,temp_max,temp_min,wind,weather',
    rows: 1_461,
    row: (index: number, random: Random) => [
      new Date(Date.UTC(2012, 0, 1 + index)).toISOString().slice(0, 10),
      random(0, 559) / 10,
      random(-16, 356) / 10,
      random(-71, 183) / 10,
      random(4, 95) / 10,
      pick(KINDS_OF_WEATHER, random),
    ],
  },
  airports: {
    header: 'iata,name,state,latitude,longitude,passengers',
    rows: 3_376,
    row: (index: number, random: Random) => [
      `A${index.toString(36).padStart(3, '0').toUpperCase()}`,
      `"Field no. ${random(1, 900)}, ""the old one"""`,
      pick(STATES, random),
      random(-90_000_000, 90_000_000) / 1e6,
      random(-180_000_000, 180_000_000) / 1e6,
      random(0, 3) === 0 ? '' : random(0, 2_000_000_000),
    ],
  },
}

type Random = (from: number, to: number) => number

const pick = <T>(values: T[], random: Random) => values[random(0, values.length - 1)]

/** One of the tables as CSV. */
export function tableCsv(name: keyof typeof TABLES): Buffer<ArrayBuffer> {
  const { header, rows, row } = TABLES[name]
  const random = seededRandom()
  const lines = Array.from({ length: rows }, (_, index) => row(index, random).join(','))
  return Buffer.from(`${[header, ...lines].join('\n')}\n`)
}

/** Whole numbers from a range, the same ones every time. */
function seededRandom(): Random {
  let state = 1
  return (from, to) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return from + Math.floor((state / 2 ** 32) * (to - from + 1))
  }
}

type Body = string | Uint8Array | ReadableStream

type Headers = Record<string, string>

interface PostOptions {
  query?: string
  headers?: Headers
}

/** Uploads a file, as the operator unless `headers` says otherwise; what it is answered. */
export async function post(
  url: string,
  body: Body,
  { query = '', headers = {} }: PostOptions = {},
) {
  const options = {
    method: 'POST',
    body,
    headers: { 'content-type': 'text/csv', ...AS_OPERATOR, ...headers },
    duplex: 'half',
  }
  const response = await fetch(`${url}/v1/reports${query}`, options as RequestInit)
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Report & { code?: string },
  }
}

/** Uploads a file that is accepted; the report. */
export async function accept(url: string, body: Body, options?: PostOptions): Promise<Report> {
  const { status, body: report } = await post(url, body, options)
  expect(status).toBe(202)
  return report
}

export const readReport = async (url: string, id: string, headers?: Headers): Promise<Report> =>
  (await request(`${url}/v1/reports/${id}`, 'GET', undefined, headers)).body

/**
 * The report once it is finished. On a machine whose cores others have, the first one of a service
 * may take 20 s: its process has the lowest priority.
 */
export const untilFinished = (
  url: string,
  id: string,
  timeoutMs = 55_000,
  headers?: Headers,
): Promise<Report> =>
  until(
    async () => {
      const report = await readReport(url, id, headers)
      return ['succeeded', 'failed', 'cancelled'].includes(report.state) ? report : undefined
    },
    `the report ${id} is finished`,
    timeoutMs,
  )

/**
 * How summaries ended in this process, once one has: where the cancelling of its report did not
 * reach it, it is not `cancelled`.
 */
export async function outcomesIn(opsUrl: string): Promise<(string | undefined)[] | undefined> {
  const page = await (await fetch(`${opsUrl}/metrics`)).text()
  const counts = page.matchAll(
    /^compute_task_duration_seconds_count\{task="report.summarise",outcome="(.*)"\}/gm,
  )
  const outcomes = [...counts].map(([, outcome]) => outcome)
  return outcomes.length > 0 ? outcomes : undefined
}

/**
 * A file that DuckDB is busy with for some seconds: `megabytes` of rows of random numbers and
 * words.
 */
export function slowCsv(megabytes: number): Buffer<ArrayBuffer> {
  const lines = Array.from(
    { length: 10_000 },
    (_, row) => `${row},${(row * 7919) % 1_000_003},word ${(row * 31) % 9_973}`,
  )
  const block = Buffer.from(`${lines.join('\n')}\n`)
  const blocks = Array.from(
    { length: Math.ceil((megabytes * 1024 ** 2) / block.length) },
    () => block,
  )
  return Buffer.concat([Buffer.from('id,number,word\n'), ...blocks])
}
