import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Backlog, Semaphore } from '../../src/db/semaphore.ts'
import { until } from '../support/until.ts'

/** So many callers may wait at a semaphore of one permit before the backlog admits no more. */
const CALLERS = 4

describe('work that needs a connection', () => {
  test('is begun at once while few callers wait at the semaphore', () => {
    const { add, begun } = useBacklog()
    add('first')
    expect(begun).toEqual(['first'])
  })

  test('waits while many do, and is begun in its order as they leave', async () => {
    const { semaphore, backlog, add, begun } = useBacklog()
    fill(semaphore)
    for (const name of ['first', 'second', 'third']) add(name)
    expect([begun, backlog.waiting]).toEqual([[], 3])
    semaphore.release()
    await until(() => backlog.waiting === 2, 'there is room for one')
    expect(begun).toEqual(['first'])
    semaphore.release()
    semaphore.release()
    await until(() => backlog.waiting === 0, 'all are begun')
    expect(begun).toEqual(['first', 'second', 'third'])
  })

  test('is not overtaken by what comes later, though there is room again', () => {
    const { semaphore, add, begun } = useBacklog()
    fill(semaphore)
    add('first')
    semaphore.release()
    add('second')
    expect(begun).toEqual([])
  })

  test('is begun though none of what was begun before it comes to the semaphore', async () => {
    const { semaphore, backlog, add, begun } = useBacklog({ acquires: false })
    fill(semaphore)
    for (let number = 0; number < 100; number++) add(String(number))
    semaphore.release()
    await until(() => backlog.waiting === 0, 'all are begun')
    expect(begun).toHaveLength(100)
  })

  test('is begun when those at the semaphore have given up', async () => {
    const { semaphore, backlog, add, begun } = useBacklog()
    const leaving = new AbortController()
    fill(semaphore, leaving.signal)
    add('first')
    leaving.abort()
    await until(() => backlog.waiting === 0, 'it is begun')
    expect(begun).toEqual(['first'])
  })

  test('is refused after too long a wait, and the next one later', async () => {
    const { semaphore, backlog, add, begun, refused } = useBacklog({ maxWaitMs: 50 })
    fill(semaphore)
    add('first')
    await sleep(10)
    add('second')
    await until(() => refused.length === 2, 'both are refused')
    expect(refused).toMatchObject([
      {
        name: 'first',
        error: { code: 'overloaded', status: 503, headers: { 'Retry-After': expect.any(String) } },
      },
      { name: 'second' },
    ])
    expect([begun, backlog.waiting]).toEqual([[], 0])
  })

  test('is all served in the end, with few at the semaphore at any time', async () => {
    const { semaphore, add, begun, most } = useBacklog({ permits: 3 })
    for (let number = 0; number < 2_000; number++) add(String(number))
    await until(() => begun.length === 2_000 && semaphore.inUse === 0, 'all are served')
    expect(most()).toBeLessThanOrEqual(3 * CALLERS)
  })
})

/** A backlog whose work, once begun, takes a permit for a turn of the event loop. */
function useBacklog({ permits = 1, maxWaitMs = 60_000, acquires = true } = {}) {
  const limits = { maxWaiters: 10_000, maxWaitMs }
  const begun: string[] = []
  const refused: { name: string; error: unknown }[] = []
  let most = 0
  const semaphore: Semaphore = new Semaphore(permits, {
    ...limits,
    maxWaitMs: 60_000,
    onWait: () => backlog.wake(),
  })
  const backlog = new Backlog(semaphore, limits)
  const work = async () => {
    const acquired = semaphore.acquire()
    most = Math.max(most, semaphore.waiting)
    await acquired
    await sleep(0)
    semaphore.release()
  }
  const add = (name: string) =>
    backlog.add({
      admit() {
        begun.push(name)
        if (acquires) void work()
      },
      refuse: (error) => refused.push({ name, error }),
    })
  return { semaphore, backlog, add, begun, refused, most: () => most }
}

/**
 * Takes the permit of a semaphore that has one, and lets as many callers wait for it as the backlog
 * allows.
 */
function fill(semaphore: Semaphore, signal?: AbortSignal) {
  semaphore.acquire()
  for (let caller = 0; caller < CALLERS; caller++) semaphore.acquire(signal)?.catch(() => {})
}
