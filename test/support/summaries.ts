import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { summariseScanned } from '../../src/features/reports/compute.ts'
import type { Summary, SummaryOptions } from '../../src/features/reports/contract.ts'
import { Duck } from '../../src/features/reports/duck.ts'
import { scanCsv } from '../../src/features/reports/scan.ts'

/** Summarises files in this process, all of them in one database: some 10 ms each. */
export function summaries() {
  let folder: string
  let duck: Duck

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'offloop-summaries-'))
    duck = await Duck.open(folder, {
      limitMb: 128,
      threads: 1,
      rowGroupRows: 20_480,
      blockBytes: 262_144,
      freedMb: 128,
    })
  })
  afterAll(async () => {
    duck[Symbol.dispose]()
    await rm(folder, { recursive: true })
  })

  /** Calls `read` with a file of that content, in a folder where a copy of it may be made. */
  async function withFile<Result>(
    content: string | Buffer,
    read: (file: string, folder: string) => Promise<Result>,
  ): Promise<Result> {
    const file = join(folder, 'upload')
    await writeFile(file, content)
    try {
      return await read(file, folder)
    } finally {
      await rm(join(folder, 'clean.csv'), { force: true })
    }
  }

  /** @throws InvalidCsvError */
  const summarise = (
    content: string | Buffer,
    options: Partial<SummaryOptions> = {},
  ): Promise<Summary> =>
    withFile(content, async (file, folder) => {
      // What is rolled back is not written to the disk.
      await duck.rows('begin transaction')
      try {
        const csv = await scanCsv({ file, folder, delimiter: options.delimiter ?? null }, () => {})
        return await summariseScanned(
          duck,
          csv,
          { groupBy: null, value: null, ...options },
          () => {},
        )
      } finally {
        await duck.rows('rollback')
      }
    })

  return { summarise, withFile }
}
