import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { Semaphore, type WaitLimits } from '../../src/db/semaphore.ts'

const A_MINUTE_MS = 60_000
const overloaded = { code: 'overloaded', status: 503 }

describe('a semaphore', () => {
  test('admits as many as it has permits, without a wait', () => {
    const semaphore = newSemaphore({ permits: 2 })
    expect([semaphore.acquire(), semaphore.acquire()]).toEqual([undefined, undefined])
    expect([semaphore.inUse, semaphore.waiting]).toEqual([2, 0])
  })

  test('has its permit again once it is released', () => {
    const semaphore = newSemaphore({ permits: 1 })
    semaphore.acquire()
    semaphore.release()
    expect(semaphore.inUse).toBe(0)
    expect(semaphore.acquire()).toBeUndefined()
  })

  test('admits those who wait in the order in which they came', async () => {
    const semaphore = newSemaphore({ permits: 1 })
    semaphore.acquire()
    const admitted: number[] = []
    const waiting = [1, 2, 3].map((place) => semaphore.acquire()?.then(() => admitted.push(place)))
    expect(semaphore.waiting).toBe(3)
    for (const acquired of waiting) {
      semaphore.release()
      await acquired
    }
    expect(admitted).toEqual([1, 2, 3])
    expect([semaphore.inUse, semaphore.waiting]).toEqual([1, 0])
  })

  test('reports how long those waited who had to, and nobody else', async () => {
    const waitsMs: number[] = []
    const semaphore = newSemaphore({ permits: 1, onWait: (ms) => waitsMs.push(ms) })
    semaphore.acquire()
    expect(waitsMs).toEqual([])
    const since = performance.now()
    const acquired = semaphore.acquire()
    await sleep(20)
    semaphore.release()
    await acquired
    const waitedMs = performance.now() - since
    const gone = semaphore.acquire(AbortSignal.abort())
    await expect(gone).rejects.toThrow()
    expect(waitsMs).toHaveLength(1)
    expect(waitsMs[0]).toBeGreaterThan(18)
    expect(waitsMs[0]).toBeLessThanOrEqual(waitedMs)
  })

  test('hands a permit over: who comes in between cannot snatch it', async () => {
    const semaphore = newSemaphore({ permits: 1 })
    semaphore.acquire()
    const first = semaphore.acquire()
    semaphore.release()
    const second = semaphore.acquire()
    expect([semaphore.inUse, semaphore.waiting]).toEqual([1, 1])
    await first
    semaphore.release()
    await second
    semaphore.release()
    expect([semaphore.inUse, semaphore.waiting]).toEqual([0, 0])
  })
})

describe('a caller that waits', () => {
  test('is refused at once where too many wait already', async () => {
    const semaphore = newSemaphore({ permits: 1, maxWaiters: 1 })
    semaphore.acquire()
    const waiting = semaphore.acquire()
    await expect(semaphore.acquire()).rejects.toMatchObject(overloaded)
    expect(semaphore.waiting).toBe(1)
    semaphore.release()
    await waiting
  })

  test('is refused in the order of arrival, each after the same time', async () => {
    const semaphore = newSemaphore({ permits: 1, maxWaitMs: 100 })
    semaphore.acquire()
    const refused: { caller: number; waitedMs: number }[] = []
    const waiting: Promise<unknown>[] = []
    for (let caller = 0; caller < 4; caller++) {
      const since = performance.now()
      const note = () => refused.push({ caller, waitedMs: performance.now() - since })
      waiting.push(Promise.resolve(semaphore.acquire()).catch(note))
      await sleep(15)
    }
    await Promise.all(waiting)
    expect(refused.map(({ caller }) => caller)).toEqual([0, 1, 2, 3])
    for (const { waitedMs } of refused) expect(waitedMs).toBeGreaterThan(98)
    expect([semaphore.inUse, semaphore.waiting]).toEqual([1, 0])
  })

  test('may be one of thousands, with one timer for all, and each is served', async () => {
    const semaphore = newSemaphore({ permits: 10, maxWaiters: 10_000 })
    const setTimeouts = vi.spyOn(globalThis, 'setTimeout')
    let served = 0
    const callers = Array.from({ length: 5_000 }, async () => {
      await semaphore.acquire()
      await sleep(0)
      served++
      semaphore.release()
    })
    expect(semaphore.waiting).toBe(4_990)
    expect(setTimeouts).toHaveBeenCalledTimes(1)
    setTimeouts.mockRestore()
    await Promise.all(callers)
    expect([served, semaphore.inUse, semaphore.waiting]).toEqual([5_000, 0, 0])
  })

  test('gets a Retry-After for when the queue may be shorter', async () => {
    const semaphore = newSemaphore({ permits: 1, maxWaiters: 0, maxWaitMs: 2_000 })
    semaphore.acquire()
    await expect(semaphore.acquire()).rejects.toMatchObject({
      headers: { 'Retry-After': expect.stringMatching(/^[234]$/) },
    })
  })

  test('is refused after too long, and takes no permit later', async () => {
    const semaphore = newSemaphore({ permits: 1, maxWaitMs: 20 })
    semaphore.acquire()
    await expect(semaphore.acquire()).rejects.toMatchObject(overloaded)
    expect(semaphore.waiting).toBe(0)
    semaphore.release()
    expect(semaphore.inUse).toBe(0)
  })

  test('leaves the queue from its front, middle and end, and the others keep their order', async () => {
    const semaphore = newSemaphore({ permits: 1 })
    semaphore.acquire()
    const controllers = Array.from({ length: 5 }, () => new AbortController())
    const admitted: number[] = []
    const waiting = controllers.map(({ signal }, caller) =>
      Promise.resolve(semaphore.acquire(signal)).then(
        () => admitted.push(caller),
        () => {},
      ),
    )
    for (const gone of [2, 0, 4]) controllers[gone]?.abort()
    expect(semaphore.waiting).toBe(2)
    for (const caller of [1, 3]) {
      semaphore.release()
      await waiting[caller]
    }
    await Promise.all(waiting)
    expect(admitted).toEqual([1, 3])
    expect([semaphore.inUse, semaphore.waiting]).toEqual([1, 0])
  })

  test('leaves the queue when its signal aborts, and the next moves up', async () => {
    const semaphore = newSemaphore({ permits: 1, maxWaiters: 2 })
    semaphore.acquire()
    const controller = new AbortController()
    const reason = new Error('The client is gone')
    const [impatient, patient] = [semaphore.acquire(controller.signal), semaphore.acquire()]
    controller.abort(reason)
    await expect(impatient).rejects.toBe(reason)
    expect(semaphore.waiting).toBe(1)

    const newcomer = semaphore.acquire()
    semaphore.release()
    await patient
    semaphore.release()
    await newcomer
    expect([semaphore.inUse, semaphore.waiting]).toEqual([1, 0])
  })

  test('does not wait at all on a signal that is aborted already', async () => {
    const semaphore = newSemaphore({ permits: 1, maxWaitMs: 1_000 })
    semaphore.acquire()
    const reason = new Error('The client is gone')
    await expect(semaphore.acquire(AbortSignal.abort(reason))).rejects.toBe(reason)
    expect(semaphore.waiting).toBe(0)
  })

  test('keeps its permit when the signal aborts after the admission', async () => {
    const semaphore = newSemaphore({ permits: 1 })
    semaphore.acquire()
    const controller = new AbortController()
    const acquired = semaphore.acquire(controller.signal)
    semaphore.release()
    controller.abort()
    await expect(acquired).resolves.toBeUndefined()
    expect(semaphore.inUse).toBe(1)
  })
})

const newSemaphore = ({ permits = 1, ...limits }: Partial<WaitLimits> & { permits?: number }) =>
  new Semaphore(permits, { maxWaiters: 10, maxWaitMs: A_MINUTE_MS, ...limits })
