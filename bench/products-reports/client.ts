import { createReadStream, readFileSync, writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { request } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Report } from '../../src/features/reports/contract.ts'
import { AS_OPERATOR } from '../support/database.ts'

const POLL_MS = 100

/** Uploads a file, and returns its report as accepted. */
export async function upload(appUrl: string, query: string, file: string): Promise<Report> {
  const { size } = await stat(file)
  const headers = { ...AS_OPERATOR, 'content-type': 'text/csv', 'content-length': size }
  const outgoing = request(`${appUrl}/v1/reports?${query}`, { method: 'POST', headers })
  const answer = new Promise<Report>((resolve, reject) => {
    outgoing.on('error', reject).on('response', async (response) => {
      const text = (await response.toArray()).join('')
      if (response.statusCode === 202) resolve(JSON.parse(text))
      else reject(new Error(text))
    })
  })
  const [report] = await Promise.all([
    answer,
    pipeline(createReadStream(file, { highWaterMark: 1024 * 1024 }), outgoing),
  ])
  return report
}

/** Polls until the report fits. */
export async function untilReport(
  appUrl: string,
  id: string,
  fits: (report: Report) => boolean,
): Promise<Report> {
  for (;;) {
    const answer = await fetch(`${appUrl}/v1/reports/${id}`, { headers: AS_OPERATOR })
    const report = (await answer.json()) as Report
    if (fits(report)) return report
    if (report.state === 'failed') throw new Error(`The report failed: ${report.error}`)
    await sleep(POLL_MS)
  }
}

export async function cancel(appUrl: string, id: string): Promise<void> {
  const response = await fetch(`${appUrl}/v1/reports/${id}`, {
    method: 'DELETE',
    headers: AS_OPERATOR,
  })
  if (response.status !== 202) throw new Error(await response.text())
}

/** The most memory that a process and its children had since `forgetPeak`, in MiB; Linux only. */
export const peakMiB = (pid: number) =>
  listProcesses(pid).reduce((sum, each) => sum + readPeakMiB(each), 0)

export function forgetPeak(pid: number): void {
  for (const each of listProcesses(pid)) writeFileSync(`/proc/${each}/clear_refs`, '5')
}

function listProcesses(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter(Boolean)
  return [pid, ...children.map(Number)]
}

function readPeakMiB(pid: number): number {
  const kib = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmHWM:\s+(\d+)/m)?.[1]
  return Number(kib) / 1024
}
