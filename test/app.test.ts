import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { createApp } from '../src/app.ts'
import { features } from '../src/features/index.ts'
import { openDeps } from './support/app.ts'
import { fixtureFeatures } from './support/fixture/features.ts'

let opened: Awaited<ReturnType<typeof openDeps>>

beforeAll(async () => {
  opened = await openDeps()
})
afterAll(() => opened.close())

test('createApp leaves no timer, handle or query behind', async () => {
  const { database } = opened.deps
  const timers = (['setTimeout', 'setInterval', 'setImmediate'] as const).map((name) =>
    vi.spyOn(globalThis, name),
  )
  const queries = [
    vi.spyOn(database, 'withSignal'),
    vi.spyOn(database, 'ping'),
    vi.spyOn(database.semaphore, 'acquire'),
  ]
  onTestFinished(() => void vi.restoreAllMocks())
  const before = process.getActiveResourcesInfo().toSorted()
  const app = createApp(opened.deps, [...features, ...fixtureFeatures])
  expect(process.getActiveResourcesInfo().toSorted()).toEqual(before)
  for (const timer of timers) expect(timer).not.toHaveBeenCalled()
  // Includes what it would have started asynchronously.
  for (let turn = 0; turn < 10; turn++) await nextTurn()
  for (const query of queries) expect(query).not.toHaveBeenCalled()

  expect((await app.request('/v1/items')).status).toBe(200)
  for (const query of [queries[0], queries[2]]) expect(query).toHaveBeenCalledOnce()
})
