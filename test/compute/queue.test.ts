import { describe, expect, test } from 'vitest'
import { Call, type Priority } from '../../src/compute/call.ts'
import { Queue } from '../../src/compute/queue.ts'

describe('one caller', () => {
  test('is served in the order of its calls', () => {
    const queue = queueOf('a1 a2 a3')
    expect(served(queue)).toBe('a1 a2 a3')
    expect(queue.size).toBe(0)
    expect(queue.peek(true)).toBeUndefined()
  })

  test('may take any of them out again, once', () => {
    const { queue, calls } = queueWith('a1 a2 a3 a4')
    for (const [place, gone] of [
      [1, true],
      [3, true],
      [1, false],
    ] as const)
      expect(queue.delete(calls[place] as Call)).toBe(gone)
    expect(queue.size).toBe(2)
    expect(served(queue)).toBe('a1 a3')
  })

  test('gets calls that were taken back before its others, in their order', () => {
    const { queue, calls } = queueWith('a1 a2 a3 a4')
    for (const call of calls.slice(0, 3)) queue.delete(call)
    queue.unshift(calls.slice(0, 3))
    expect(served(queue)).toBe('a1 a2 a3 a4')
  })

  test('may put a call back into an empty queue', () => {
    const { queue, calls } = queueWith('a1')
    queue.delete(calls[0] as Call)
    queue.unshift(calls)
    expect([queue.size, served(queue)]).toEqual([1, 'a1'])
  })
})

describe('callers with keys', () => {
  test('take turns, however much one of them asks for', () => {
    expect(served(queueOf('a1 a2 a3 a4 b1 c1 c2'))).toBe('a1 b1 c1 a2 c2 a3 a4')
  })

  test('wait one turn of the others at most when they come late', () => {
    const queue = queueOf('a1 a2 a3 b1 b2 b3')
    expect(serve(queue, 3)).toBe('a1 b1 a2')
    push(queue, 'c1')
    expect(served(queue)).toBe('b2 a3 c1 b3')
  })

  test('keep their turn when one of their calls is dropped', () => {
    const { queue, calls } = queueWith('a1 a2 b1 b2 c1')
    queue.delete(calls[1] as Call)
    queue.delete(calls[3] as Call)
    expect(served(queue)).toBe('a1 b1 c1')
  })

  test('lose nothing when all of their calls are dropped', () => {
    const { queue, calls } = queueWith('a1 b1 c1')
    queue.delete(calls[1] as Call)
    push(queue, 'b2')
    expect(served(queue)).toBe('a1 c1 b2')
  })
})

describe('two priorities', () => {
  test('share the time while both wait: four parts for requests, one for jobs', () => {
    const queue = new Queue()
    for (let index = 0; index < 100; index++) {
      push(queue, `i${index}`)
      push(queue, `j${index}`, 'batch')
    }
    const first = serve(queue, 50, 10).split(' ')
    expect(first.filter((name) => name.startsWith('j')).length).toBe(10)
    expect(first[0]).toBe('i0')
  })

  test('share time, not turns: jobs that take long come less often', () => {
    const queue = new Queue()
    for (let index = 0; index < 100; index++) {
      push(queue, `i${index}`)
      push(queue, `j${index}`, 'batch')
    }
    const first = serve(queue, 54, ({ priority }) => (priority === 'batch' ? 100 : 10)).split(' ')
    expect(first.filter((name) => name.startsWith('j')).length).toBeLessThanOrEqual(2)
    expect(first.some((name) => name.startsWith('j'))).toBe(true)
  })

  test.each(['interactive', 'batch'] as const)('what was alone for long owes nothing when the other comes: %s', (alone) => {
    const queue = new Queue()
    const other = alone === 'batch' ? 'interactive' : 'batch'
    for (let index = 0; index < 1_000; index++) push(queue, `x${index}`, alone)
    serve(queue, 900, 1_000)
    for (let index = 0; index < 50; index++) push(queue, `y${index}`, other)
    const next = serve(queue, 40, 10).split(' ')
    const batch = next.filter((name) => name.startsWith(alone === 'batch' ? 'x' : 'y')).length
    expect(batch).toBe(8)
  })

  test('jobs wait where they may not be served', () => {
    const queue = queueOf('a1')
    push(queue, 'j1', 'batch')
    queue.delete(queue.peek(false) as Call)
    expect(queue.peek(false)).toBeUndefined()
    expect(queue.peek(true)?.task).toBe('j1')
  })

  test('are counted apart, and listed together', () => {
    const queue = queueOf('a1 b1')
    push(queue, 'j1', 'batch')
    expect([queue.sizeOf('interactive'), queue.sizeOf('batch'), queue.size]).toEqual([2, 1, 3])
    expect([...queue].map(({ task }) => task)).toEqual(['a1', 'b1', 'j1'])
  })
})

describe('the wait', () => {
  test('is what the calls before it are expected to take', () => {
    const queue = queueOf('a1 b1', 30)
    expect(queue.waitMs('interactive')).toBe(60)
    queue.delete(queue.peek(true) as Call)
    expect(queue.waitMs('interactive')).toBe(30)
  })

  test('is longer where the time is shared', () => {
    const queue = queueOf('a1', 80)
    push(queue, 'j1', 'batch', 20)
    expect(queue.waitMs('interactive')).toBeCloseTo(100)
    expect(queue.waitMs('batch')).toBeCloseTo(100)
  })
})

const queueOf = (names: string, estimateMs?: number) => queueWith(names, estimateMs).queue

/** Calls by their names; the letter is the caller's key. */
function queueWith(names: string, estimateMs?: number) {
  const queue = new Queue()
  const calls = names.split(' ').map((name) => push(queue, name, 'interactive', estimateMs))
  return { queue, calls }
}

function push(queue: Queue, name: string, priority: Priority = 'interactive', estimateMs = 0): Call {
  const work = { task: name, mode: 'one', input: null, items: 1, accepted: false } as const
  const call = new Call(work, { priority, key: name[0] }, noop, noop)
  call.estimateMs = estimateMs
  queue.push(call)
  return call
}

/** The names of the next calls, each of which takes so long. */
function serve(queue: Queue, most: number, ms: number | ((call: Call) => number) = 0): string {
  const names: string[] = []
  for (let call = queue.peek(true); call && names.length < most; call = queue.peek(true)) {
    queue.delete(call)
    queue.charge(call, typeof ms === 'number' ? ms : ms(call))
    names.push(call.task)
  }
  return names.join(' ')
}

const served = (queue: Queue) => serve(queue, Number.POSITIVE_INFINITY)

const noop = () => {}
