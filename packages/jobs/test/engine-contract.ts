import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { useDatabase } from '../../../test/support/database.ts'
import { enqueue, useJobs } from '../../../test/support/jobs.ts'
import { until } from '../../../test/support/until.ts'
import type { Engine } from '../engine.ts'
import { handle, job } from '../job.ts'

/** So rarely that no test sees it. */
const NEVER_MS = 3_600_000
const JOBS = 60

const note = job<{ name: string; ms?: number }>('test.note', { attempts: 3, backoffMs: 20 })
const flaky = job<null, number>('test.flaky', { attempts: 3, backoffMs: 20 })
const untilTold = job<null>('test.until-told')

/**
 * What every engine must do, whatever delivers the ids: one process's engine is made by
 * `createEngine` for each of the "processes" of a test, which share a database. An engine that
 * polls does so every `pollMs`, if that is given.
 */
export function engineContract(name: string, createEngine: (pollMs?: number) => Engine) {
  async function useProcesses(concurrencies: number[], pollMs?: number) {
    const { database } = await useDatabase({ poolSize: 10 })
    const noted: string[] = []
    const handlers = [
      handle(note, async (input) => {
        noted.push(input.name)
        await sleep(input.ms ?? 0)
      }),
      handle(flaky, (_, { attempt }) =>
        attempt < 3 ? Promise.reject(new Error('not yet')) : attempt,
      ),
      handle(untilTold, (_, { signal }) => sleep(60_000, undefined, { signal })),
    ]
    const processes = concurrencies.map((concurrency) =>
      useJobs(database, { handlers, concurrency, engine: createEngine(pollMs) }),
    )
    const [first] = processes
    if (!first) throw new Error('No process')
    const put = (input: { name: string; ms?: number }, options = {}) =>
      enqueue({ database, jobs: first.jobs }, note, input, options)
    const stateOf = async (id: string) => (await first.jobs.find(database.withSignal(), id))?.state
    return { database, db: database.withSignal(), jobs: first.jobs, processes, noted, put, stateOf }
  }

  describe(`the ${name} engine`, () => {
    test('delivers what was committed here at once', async () => {
      const { put, noted } = await useProcesses([1], NEVER_MS)
      await put({ name: 'a' })
      await until(() => noted.length === 1, 'it is begun')
    })

    test('delivers what another process queued', async () => {
      const { put, noted } = await useProcesses([0, 1])
      await put({ name: 'a' })
      await until(() => noted.length === 1, 'it is begun')
    })

    test('delivers each job once, to whichever process has room', async () => {
      const { put, noted, jobs, processes } = await useProcesses([3, 3])
      const names = Array.from({ length: JOBS }, (_, index) => `job ${index}`)
      for (const jobName of names) await put({ name: jobName, ms: 30 })
      await until(async () => (await jobs.counts()).succeeded === JOBS, 'all are done')
      expect(noted.toSorted()).toEqual(names.toSorted())
      for (const { changes } of processes)
        expect(changes.some(({ state }) => state === 'running')).toBe(true)
    })

    test('never delivers more than there is room for', async () => {
      const { put, jobs, processes } = await useProcesses([2])
      const running: number[] = []
      jobs.onChange(() => running.push(jobs.running))
      for (let index = 0; index < 8; index++) await put({ name: `job ${index}`, ms: 20 })
      await until(
        () => processes[0]?.changes.filter(({ state }) => state === 'succeeded').length === 8,
        'all are done',
      )
      expect(Math.max(...running)).toBe(2)
    })

    test('delivers the urgent first', async () => {
      const { database, db, jobs, put, noted } = await useProcesses([1])
      const { id } = await enqueue({ database, jobs }, untilTold, null)
      await until(() => jobs.running === 1, 'the only place is taken')
      await put({ name: 'later' }, { priority: 5 })
      await put({ name: 'now' }, { priority: -5 })
      await put({ name: 'soon' })
      await jobs.cancel(db, id)
      await until(() => noted.length === 3, 'all are begun')
      expect(noted).toEqual(['now', 'soon', 'later'])
      expect((await jobs.find(db, id))?.state).toBe('cancelled')
    })

    test('holds back what is for later, and delivers it when its time has come', async () => {
      const { db, jobs, put, stateOf } = await useProcesses([1])
      const runAt = new Date(Date.now() + 700)
      const { id } = await put({ name: 'a' }, { runAt })
      expect(await stateOf(id)).toBe('scheduled')
      await until(async () => (await stateOf(id)) === 'succeeded', 'it is done')
      const startedAt = (await jobs.find(db, id))?.startedAt?.getTime()
      expect(startedAt).toBeGreaterThanOrEqual(runAt.getTime())
    })

    test('delivers again what failed', async () => {
      const { database, db, jobs, stateOf } = await useProcesses([1])
      const { id } = await enqueue({ database, jobs }, flaky, null)
      await until(async () => (await stateOf(id)) === 'succeeded', 'it is done')
      expect(await jobs.find(db, id)).toMatchObject({ attempt: 3, result: 3, error: null })
    })

    test('does not deliver what was cancelled, until it is retried', async () => {
      const { db, jobs, put, noted, stateOf } = await useProcesses([1])
      const { id } = await put({ name: 'a' }, { runAt: new Date(Date.now() + 60_000) })
      await jobs.cancel(db, id)
      await put({ name: 'b' })
      await until(() => noted.length === 1, 'the other is begun')
      expect(await stateOf(id)).toBe('cancelled')
      await jobs.retry(db, id)
      await until(async () => (await stateOf(id)) === 'succeeded', 'it is done')
      expect(noted).toEqual(['b', 'a'])
    })

    test('stops delivering when it is stopped, and leaves the rest to others', async () => {
      const { jobs, put, processes, stateOf } = await useProcesses([1, 1])
      await jobs.stop()
      const { id } = await put({ name: 'a' })
      await until(async () => (await stateOf(id)) === 'succeeded', 'another does it')
      expect(processes[0]?.statesOf(id)).toEqual(['queued'])
    })
  })
}
