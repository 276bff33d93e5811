import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { Report } from '../../src/features/reports/schema.ts'
import { request } from './service.ts'
import { until } from './until.ts'

const DATASETS = join(import.meta.dirname, '../../node_modules/vega-datasets/data')

/** The path of one of vega-datasets' files. */
export const dataset = (name: string) => join(DATASETS, name)

/** One of vega-datasets' files. */
export const datasetBytes = (name: string) => readFileSync(dataset(name))

type Body = string | Uint8Array | ReadableStream

interface PostOptions {
  query?: string
  headers?: Record<string, string>
}

/** Uploads a file; what it is answered. */
export async function post(url: string, body: Body, { query = '', headers = {} }: PostOptions = {}) {
  const options = { method: 'POST', body, headers: { 'content-type': 'text/csv', ...headers }, duplex: 'half' }
  const response = await fetch(`${url}/v1/reports${query}`, options as RequestInit)
  return { status: response.status, headers: response.headers, body: (await response.json()) as Report & { code?: string } }
}

/** Uploads a file that is accepted; the report. */
export async function accept(url: string, body: Body, options?: PostOptions): Promise<Report> {
  const { status, body: report } = await post(url, body, options)
  expect(status).toBe(202)
  return report
}

export const readReport = async (url: string, id: string): Promise<Report> => (await request(`${url}/v1/reports/${id}`)).body

/** The report once it is finished. */
export const untilFinished = (url: string, id: string, timeoutMs?: number): Promise<Report> =>
  until(
    async () => {
      const report = await readReport(url, id)
      return ['succeeded', 'failed', 'cancelled'].includes(report.state) ? report : undefined
    },
    `the report ${id} is finished`,
    timeoutMs,
  )

/** A file that DuckDB is busy with for some seconds: `megabytes` of rows of random numbers and words. */
export function slowCsv(megabytes: number): Buffer<ArrayBuffer> {
  const lines = Array.from({ length: 10_000 }, (_, row) => `${row},${(row * 7919) % 1_000_003},word ${(row * 31) % 9_973}`)
  const block = Buffer.from(`${lines.join('\n')}\n`)
  const blocks = Array.from({ length: Math.ceil((megabytes * 1024 ** 2) / block.length) }, () => block)
  return Buffer.concat([Buffer.from('id,number,word\n'), ...blocks])
}
