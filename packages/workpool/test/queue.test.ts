import { describe, expect, test } from 'vitest'
import { Call, type Entry, MapEntry, type Priority } from '../call.ts'
import { Caller, CallerOrder, Queue } from '../queue.ts'

describe('one caller', () => {
  test('is served in the order of its calls', () => {
    const queue = queueOf('a1 a2 a3')
    expect(served(queue)).toBe('a1 a2 a3')
    expect(queue.size).toBe(0)
    expect(next(queue)).toBeUndefined()
  })

  test('may take any of them out again, once', () => {
    const { queue, calls } = queueWith('a1 a2 a3 a4')
    for (const [place, gone] of [
      [1, true],
      [3, true],
      [1, false],
    ] as const)
      expect(remove(queue, calls[place] as Call)).toBe(gone)
    expect(queue.size).toBe(2)
    expect(served(queue)).toBe('a1 a3')
  })

  test('gets calls that were taken back before its others, in their order', () => {
    const { queue, calls } = queueWith('a1 a2 a3 a4')
    for (const call of calls.slice(0, 3)) remove(queue, call)
    queue.unshift(calls.slice(0, 3))
    expect(served(queue)).toBe('a1 a2 a3 a4')
  })

  test('may put a call back into an empty queue', () => {
    const { queue, calls } = queueWith('a1')
    remove(queue, calls[0] as Call)
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
    remove(queue, calls[1] as Call)
    remove(queue, calls[3] as Call)
    expect(served(queue)).toBe('a1 b1 c1')
  })

  test('lose nothing when all of their calls are dropped', () => {
    const { queue, calls } = queueWith('a1 b1 c1')
    remove(queue, calls[1] as Call)
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

  test.each(['interactive', 'batch'] as const)(
    'what was alone for long owes nothing when the other comes: %s',
    (alone) => {
      const queue = new Queue()
      const other = alone === 'batch' ? 'interactive' : 'batch'
      for (let index = 0; index < 1_000; index++) push(queue, `x${index}`, alone)
      serve(queue, 900, 1_000)
      for (let index = 0; index < 50; index++) push(queue, `y${index}`, other)
      const next = serve(queue, 40, 10).split(' ')
      const batch = next.filter((name) => name.startsWith(alone === 'batch' ? 'x' : 'y')).length
      expect(batch).toBe(8)
    },
  )

  test('jobs wait where they may not be served', () => {
    const queue = queueOf('a1')
    push(queue, 'j1', 'batch')
    expect(queue.peek(false)?.task).toBe('a1')
    expect(serve(queue, 1)).toBe('a1')
    expect(queue.peek(false)).toBeUndefined()
    expect(next(queue)?.task).toBe('j1')
  })

  test('are counted apart, and listed together', () => {
    const queue = queueOf('a1 b1')
    push(queue, 'j1', 'batch')
    expect([queue.of('interactive').size, queue.of('batch').size, queue.size]).toEqual([2, 1, 3])
    expect([...queue].map(({ task }) => task)).toEqual(['a1', 'b1', 'j1'])
  })
})

describe('the wait', () => {
  test('is what the calls before it are expected to take', () => {
    const queue = queueOf('a1 b1', 30)
    expect(queue.waitMs('interactive')).toBe(60)
    take(queue, next(queue) as Entry)
    expect(queue.waitMs('interactive')).toBe(30)
  })

  test('is longer where the time is shared', () => {
    const queue = queueOf('a1', 80)
    push(queue, 'j1', 'batch', 20)
    expect(queue.waitMs('interactive')).toBeCloseTo(100)
    expect(queue.waitMs('batch')).toBeCloseTo(100)
  })
})

describe('the time of the threads', () => {
  test('is shared by the callers, whatever each of their calls takes', () => {
    const queue = new Queue()
    for (let index = 0; index < 100; index++) {
      push(queue, `a${index}`)
      push(queue, `b${index}`)
    }
    const names = serve(queue, 44, ({ options: { key } }) => (key === 'a' ? 100 : 10)).split(' ')
    expect(names.filter((name) => name.startsWith('a')).length).toBe(4)
  })

  test('counts from when a caller comes: neither credit nor debt of others', () => {
    const queue = queueOf('a1 a2 a3 a4 a5 a6')
    serve(queue, 3, 100)
    push(queue, 'b1')
    push(queue, 'b2')
    expect(serve(queue, 4, 100)).toBe('b1 a4 b2 a5')
  })

  test('that a caller has used more of is not forgotten while it asks for nothing', () => {
    const queue = queueOf('a1 b1 b2 b3 b4')
    expect(serve(queue, 1, 35)).toBe('a1')
    push(queue, 'a2')
    expect(serve(queue, 5, 10)).toBe('b1 b2 b3 b4 a2')
  })

  test('that a caller missed between two calls is made up for, up to a tenth of a second', () => {
    const queue = queueOf('b')
    for (let index = 0; index < 100; index++) push(queue, `a${index}`)
    expect(serve(queue, 1, 10)).toBe('b')
    serve(queue, 5, 10)
    for (let index = 0; index < 4; index++) push(queue, `b${index}`)
    expect(serve(queue, 4, 10)).toBe('b0 b1 b2 b3')
    serve(queue, 40, 10)
    for (let index = 0; index < 40; index++) push(queue, `b${index}`)
    const names = serve(queue, 30, 10).split(' ')
    // Ten, and then every second one.
    expect(names.filter((name) => name.startsWith('b')).length).toBe(20)
  })

  test('is shared by a second at most: no caller pays longer for a long call', () => {
    const queue = queueOf('a1 a2')
    for (let index = 0; index < 100; index++) push(queue, `b${index}`)
    expect(serve(queue, 1, 60_000)).toBe('a1')
    expect(serve(queue, 15, 100)).toContain('a2')
  })

  test('is shared by thousands of callers without searching through them', () => {
    const order = new CallerOrder()
    let comparisons = 0
    for (let index = 0; index < 10_000; index++) {
      const caller = new Caller(`caller ${index}`, 0)
      const usedMs = (index * 7_919) % 10_000
      Object.defineProperty(caller, 'usedMs', {
        get() {
          comparisons++
          return usedMs
        },
      })
      order.add(caller)
    }
    for (let next = order.first; next; next = order.first) order.remove(next)
    // Of each caller there are 20 000, where each of them is compared to all others.
    expect(comparisons / 10_000).toBeLessThan(100)
  })
})

describe('a map', () => {
  test('is one entry, and its chunks are served before the next map of its caller', () => {
    const queue = new Queue()
    const [first, second] = [pushMap(queue, 'am1'), pushMap(queue, 'am2')]
    expect(queue.size).toBe(2)
    take(queue, first)
    for (const name of ['ac1', 'ac2']) pushChunk(queue, name, first)
    expect(serve(queue, 2)).toBe('ac1 ac2')
    expect(next(queue)).toBeUndefined()
    queue.of('interactive').activeMaps.delete(first)
    expect(next(queue)).toBe(second)
  })

  test('begins beside another of its caller where there is nothing else to serve', () => {
    const queue = new Queue()
    const [first, second] = [pushMap(queue, 'am1'), pushMap(queue, 'am2')]
    take(queue, first)
    pushChunk(queue, 'ac1', first)
    expect(queue.peekExtraMap(true)).toBeUndefined()
    expect(serve(queue, 1)).toBe('ac1')
    expect([next(queue), queue.peekExtraMap(true)]).toEqual([undefined, second])
  })

  test('of one caller takes turns with that of another, chunk by chunk, and a third waits', () => {
    const queue = new Queue()
    const maps = ['am', 'bm', 'cm'].map((name) => pushMap(queue, name))
    for (const map of maps.slice(0, 2)) {
      expect(next(queue)).toBe(map)
      take(queue, map)
    }
    for (let chunk = 1; chunk <= 3; chunk++)
      for (const map of maps.slice(0, 2)) pushChunk(queue, `${map.task[0]}${chunk}`, map)
    expect(serve(queue, 6, 8)).toBe('a1 b1 a2 b2 a3 b3')
    expect(next(queue)).toBeUndefined()
    queue.of('interactive').activeMaps.delete(maps[0] as MapEntry)
    expect(next(queue)).toBe(maps[2])
  })

  test('leaves half of its caller’s time to what that one runs', () => {
    const queue = new Queue()
    const map = pushMap(queue, 'am')
    take(queue, map)
    for (let chunk = 1; chunk <= 4; chunk++) {
      pushChunk(queue, `c${chunk}`, map, 'a')
      push(queue, `a${chunk}`)
    }
    expect(serve(queue, 8, 8)).toBe('a1 c1 a2 c2 a3 c3 a4 c4')
  })
})

const queueOf = (names: string, estimateMs?: number) => queueWith(names, estimateMs).queue

/** Calls by their names; the letter is the caller's key. */
function queueWith(names: string, estimateMs?: number) {
  const queue = new Queue()
  const calls = names.split(' ').map((name) => push(queue, name, 'interactive', estimateMs))
  return { queue, calls }
}

function push(
  queue: Queue,
  name: string,
  priority: Priority = 'interactive',
  estimateMs = 0,
  key = name[0],
  map?: MapEntry,
): Call {
  const call = new Call(
    { task: name, mode: 'one', input: null, items: 1, ...(map && { map }) },
    { priority, key },
    noop,
    noop,
  )
  call.estimateMs = estimateMs
  queue.push(call)
  return call
}

const pushChunk = (queue: Queue, name: string, map: MapEntry, key = name[0]) =>
  push(queue, name, 'interactive', 0, key, map)

function pushMap(queue: Queue, name: string): MapEntry {
  const parts = { begin: noop, countUnsent: () => 0 }
  const map = new MapEntry(name, { key: name[0] }, parts, noop)
  queue.push(map)
  return map
}

const next = (queue: Queue) => queue.peek(true)

const take = (queue: Queue, entry: Entry) => queue.of(entry.priority).take(entry)

const remove = (queue: Queue, entry: Entry) => queue.of(entry.priority).delete(entry)

/** The names of the next calls, each of which takes so long. */
function serve(queue: Queue, most: number, ms: number | ((call: Entry) => number) = 0): string {
  const names: string[] = []
  for (let entry = next(queue); entry && names.length < most; entry = next(queue)) {
    take(queue, entry)
    queue.charge(entry as Call, typeof ms === 'number' ? ms : ms(entry))
    names.push(entry.task)
  }
  return names.join(' ')
}

const served = (queue: Queue) => serve(queue, Number.POSITIVE_INFINITY)

const noop = () => {}
