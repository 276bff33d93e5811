import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { sweep } from '../../../src/features/reports/jobs.ts'
import { DirectoryStorage } from '../../../src/features/reports/storage.ts'
import { accept, readReport, untilFinished } from '../../support/reports.ts'
import { request, useService } from '../../support/service.ts'

const NEVER = new AbortController().signal

test('the sweep removes day-old uploads of finished reports, orphans, and folders of reports that do not run', async () => {
  const { url, database, reportDirectory } = await useService()
  const [uploads, spill] = [join(reportDirectory, 'uploads'), join(reportDirectory, 'spill')]
  const [old, fresh] = [await accept(url, 'a\n1\n'), await accept(url, 'a\n2\n')]
  await Promise.all([old, fresh].map(({ id }) => untilFinished(url, id)))
  await sql`update report set created_at = now(3) - interval 25 hour where id = ${old.id}`.execute(
    database.withSignal(),
  )
  await writeFile(join(uploads, 'orphan'), '')
  await writeFile(join(uploads, 'unfinished.part'), '')
  await writeFile(join(uploads, 'arriving.part'), '')
  await mkdir(join(spill, `${old.id}.x`), { recursive: true })
  const yesterday = new Date(Date.now() - 86_400_000)
  for (const file of [
    join(uploads, 'orphan'),
    join(uploads, 'unfinished.part'),
    join(spill, `${old.id}.x`),
  ])
    await utimes(file, yesterday, yesterday)
  const before = await readdir(uploads)

  await sweep({ database, storage: new DirectoryStorage(uploads), spillDirectory: spill }, NEVER)

  const left = await readdir(uploads)
  expect([before.length, left.length]).toEqual([5, 2])
  expect(left).toContain('arriving.part')
  expect(await readdir(spill)).toEqual([])
  const rows = await database.withSignal().selectFrom('report').select(['id', 'upload']).execute()
  expect(rows.filter(({ upload }) => upload !== null).map(({ id }) => id)).toEqual([fresh.id])
  expect((await readReport(url, old.id)).result?.rows).toBe(1)
})

test('the sweep removes uploads of jobs that were cancelled an hour ago', async () => {
  const { url, database, reportDirectory } = await useService({ JOBS_QUEUES: 'off' })
  const [earlier, lately] = [await accept(url, 'a\n1\n'), await accept(url, 'a\n2\n')]
  for (const { id } of [earlier, lately]) await request(`${url}/v1/jobs/${id}`, 'DELETE')
  await sql`update job set finished_at = now(3) - interval 61 minute where id = ${earlier.id}`.execute(
    database.withSignal(),
  )
  const uploads = join(reportDirectory, 'uploads')
  await sweep(
    {
      database,
      storage: new DirectoryStorage(uploads),
      spillDirectory: join(reportDirectory, 'spill'),
    },
    NEVER,
  )
  const rows = await database
    .withSignal()
    .selectFrom('report')
    .select(['id', 'upload'])
    .where('upload', 'is not', null)
    .execute()
  expect(rows.map(({ id }) => id)).toEqual([lately.id])
  expect(await readdir(uploads)).toEqual([rows[0]?.upload])
})

test('the sweep removes any number of uploads that no report knows', async () => {
  const { database, reportDirectory } = await useService()
  const uploads = join(reportDirectory, 'uploads')
  await mkdir(uploads, { recursive: true })
  const yesterday = new Date(Date.now() - 86_400_000)
  for (let index = 0; index < 1_300; index++) {
    const file = join(uploads, `orphan-${index}`)
    await writeFile(file, '')
    await utimes(file, yesterday, yesterday)
  }
  await sweep(
    {
      database,
      storage: new DirectoryStorage(uploads),
      spillDirectory: join(reportDirectory, 'spill'),
    },
    NEVER,
  )
  expect(await readdir(uploads)).toEqual([])
})
