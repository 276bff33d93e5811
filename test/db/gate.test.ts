import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { Gate, type GateOptions } from '../../src/db/gate.ts'

const A_MINUTE_MS = 60_000
const overloaded = { code: 'overloaded', status: 503 }

describe('a gate', () => {
  test('lets in as many as it has permits, without a wait', () => {
    const gate = newGate({ permits: 2 })
    expect([gate.enter(), gate.enter()]).toEqual([undefined, undefined])
    expect([gate.inside, gate.waiting]).toEqual([2, 0])
  })

  test('takes permits back', () => {
    const gate = newGate({ permits: 1 })
    gate.enter()
    gate.leave()
    expect(gate.inside).toBe(0)
    expect(gate.enter()).toBeUndefined()
  })

  test('admits those who wait in the order in which they came', async () => {
    const gate = newGate({ permits: 1 })
    gate.enter()
    const admitted: number[] = []
    const waiting = [1, 2, 3].map((place) => gate.enter()?.then(() => admitted.push(place)))
    expect(gate.waiting).toBe(3)
    for (const entered of waiting) {
      gate.leave()
      await entered
    }
    expect(admitted).toEqual([1, 2, 3])
    expect([gate.inside, gate.waiting]).toEqual([1, 0])
  })

  test('tells how long those waited who had to, and of nobody else', async () => {
    const waitsMs: number[] = []
    const gate = newGate({ permits: 1, onWait: (ms) => waitsMs.push(ms) })
    gate.enter()
    expect(waitsMs).toEqual([])
    const entered = gate.enter()
    await sleep(20)
    gate.leave()
    await entered
    const gone = gate.enter(AbortSignal.abort())
    await expect(gone).rejects.toThrow()
    expect(waitsMs).toEqual([expect.closeTo(20, -2)])
  })

  test('hands a permit over: who comes in between cannot snatch it', async () => {
    const gate = newGate({ permits: 1 })
    gate.enter()
    const first = gate.enter()
    gate.leave()
    const second = gate.enter()
    expect([gate.inside, gate.waiting]).toEqual([1, 1])
    await first
    gate.leave()
    await second
    gate.leave()
    expect([gate.inside, gate.waiting]).toEqual([0, 0])
  })
})

describe('who waits', () => {
  test('is refused at once where too many wait already', async () => {
    const gate = newGate({ permits: 1, maxWaiters: 1 })
    gate.enter()
    const waiting = gate.enter()
    await expect(gate.enter()).rejects.toMatchObject(overloaded)
    expect(gate.waiting).toBe(1)
    gate.leave()
    await waiting
  })

  test('is refused in the order of arrival, each after the same time', async () => {
    const gate = newGate({ permits: 1, maxWaitMs: 100 })
    gate.enter()
    const refused: { caller: number; waitedMs: number }[] = []
    const waiting: Promise<unknown>[] = []
    for (let caller = 0; caller < 4; caller++) {
      const since = performance.now()
      const note = () => refused.push({ caller, waitedMs: performance.now() - since })
      waiting.push(Promise.resolve(gate.enter()).catch(note))
      await sleep(15)
    }
    await Promise.all(waiting)
    expect(refused.map(({ caller }) => caller)).toEqual([0, 1, 2, 3])
    for (const { waitedMs } of refused) expect(waitedMs).toBeGreaterThan(98)
    expect([gate.inside, gate.waiting]).toEqual([1, 0])
  })

  test('may be one of thousands, with one timer for all, and each is served', async () => {
    const gate = newGate({ permits: 10, maxWaiters: 10_000 })
    const setTimeouts = vi.spyOn(globalThis, 'setTimeout')
    let served = 0
    const callers = Array.from({ length: 5_000 }, async () => {
      await gate.enter()
      await sleep(0)
      served++
      gate.leave()
    })
    expect(gate.waiting).toBe(4_990)
    expect(setTimeouts).toHaveBeenCalledTimes(1)
    setTimeouts.mockRestore()
    await Promise.all(callers)
    expect([served, gate.inside, gate.waiting]).toEqual([5_000, 0, 0])
  })

  test('is told to come back when the queue may be shorter, not at once', async () => {
    const gate = newGate({ permits: 1, maxWaiters: 0, maxWaitMs: 2_000 })
    gate.enter()
    await expect(gate.enter()).rejects.toMatchObject({
      headers: { 'Retry-After': expect.stringMatching(/^[234]$/) },
    })
  })

  test('is refused after too long, and takes no permit later', async () => {
    const gate = newGate({ permits: 1, maxWaitMs: 20 })
    gate.enter()
    await expect(gate.enter()).rejects.toMatchObject(overloaded)
    expect(gate.waiting).toBe(0)
    gate.leave()
    expect(gate.inside).toBe(0)
  })

  test('leaves the queue from its front, middle and end, and the others keep their order', async () => {
    const gate = newGate({ permits: 1 })
    gate.enter()
    const controllers = Array.from({ length: 5 }, () => new AbortController())
    const admitted: number[] = []
    const waiting = controllers.map(({ signal }, caller) =>
      Promise.resolve(gate.enter(signal)).then(
        () => admitted.push(caller),
        () => {},
      ),
    )
    for (const gone of [2, 0, 4]) controllers[gone]?.abort()
    expect(gate.waiting).toBe(2)
    for (const caller of [1, 3]) {
      gate.leave()
      await waiting[caller]
    }
    await Promise.all(waiting)
    expect(admitted).toEqual([1, 3])
    expect([gate.inside, gate.waiting]).toEqual([1, 0])
  })

  test('leaves the queue when its signal aborts, and the next moves up', async () => {
    const gate = newGate({ permits: 1, maxWaiters: 2 })
    gate.enter()
    const controller = new AbortController()
    const reason = new Error('The client is gone')
    const [impatient, patient] = [gate.enter(controller.signal), gate.enter()]
    controller.abort(reason)
    await expect(impatient).rejects.toBe(reason)
    expect(gate.waiting).toBe(1)

    const newcomer = gate.enter()
    gate.leave()
    await patient
    gate.leave()
    await newcomer
    expect([gate.inside, gate.waiting]).toEqual([1, 0])
  })

  test('does not wait at all on a signal that is aborted already', async () => {
    const gate = newGate({ permits: 1, maxWaitMs: 1_000 })
    gate.enter()
    const reason = new Error('The client is gone')
    await expect(gate.enter(AbortSignal.abort(reason))).rejects.toBe(reason)
    expect(gate.waiting).toBe(0)
  })

  test('keeps its permit when the signal aborts after the admission', async () => {
    const gate = newGate({ permits: 1 })
    gate.enter()
    const controller = new AbortController()
    const entered = gate.enter(controller.signal)
    gate.leave()
    controller.abort()
    await expect(entered).resolves.toBeUndefined()
    expect(gate.inside).toBe(1)
  })
})

const newGate = (options: Partial<GateOptions>) =>
  new Gate({ permits: 1, maxWaiters: 10, maxWaitMs: A_MINUTE_MS, ...options })
