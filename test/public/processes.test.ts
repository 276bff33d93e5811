import { beforeEach, describe, expect, test } from 'vitest'
import type { OpsSample } from '../../src/ops/live-samples.ts'
import type { ProcessList } from '../../src/ops/processes.ts'

// The page's scripts have a type check of their own.
const { nameOf, Processes } = await import(
  new URL('../../public/processes.js', import.meta.url).href
)

const BEGIN = 1_800_000_000_000
const SECOND_MS = 1_000
const VERSIONS = { node: '26', v8: '14', database: '9' }

type Row = ProcessList['processes'][0]

let processes: InstanceType<typeof Processes>

beforeEach(() => {
  processes = new Processes()
})

test('a process is named by its host and number', () => {
  expect(nameOf({ id: 'host:123:abcdef' })).toBe('host:123')
})

describe('the processes of a page', () => {
  test('are its own and then the others, by role and name', () => {
    processes.load(past('c', 0))
    processes.list(list([row('b10'), row('b9'), row('a', { role: 'worker' }), row('c')]))
    expect(shown()).toEqual(['c', 'b9', 'b10', 'a'])
    expect(processes.own.versions).toEqual(VERSIONS)
  })

  test('are shown when they are listed: one that starts may be about to replace another', () => {
    processes.load(past('a', 0))
    processes.list(list([row('a')]))
    expect(processes.isOutdated).toBe(false)
    processes.hear('b', sample(1), BEGIN)
    expect([shown(), processes.isOutdated]).toEqual([['a'], true])
    processes.list(list([row('a'), row('b')]))
    expect([shown(), processes.isOutdated]).toEqual([['a', 'b'], false])
  })

  test('have the first that is heard as the own one, until the first answer', () => {
    processes.hear('b', sample(0), BEGIN)
    expect(processes.own.id).toBe('b')
    processes.load(past('a', 0))
    expect(processes.own.id).toBe('a')
    processes.load(past('b', 1))
    expect(processes.own.id).toBe('a')
  })

  test('keep their samples apart', () => {
    processes.load(past('a', 0))
    processes.hear('b', sample(1), BEGIN)
    processes.hear('a', sample(2), BEGIN)
    expect(times(processes.own.samples)).toEqual([0, 2])
    processes.choose('b')
    expect(times(processes.chosen.samples)).toEqual([1])
  })

  test('are at most 64', () => {
    for (let index = 0; index < 100; index++) processes.hear(`p${index}`, sample(0), BEGIN)
    processes.list(list([row('another')], 40))
    expect(processes.ids).toHaveLength(64)
    expect(processes.isOutdated).toBe(false)
  })
})

describe('a process that is gone', () => {
  beforeEach(() => {
    processes.load(past('a', 0))
    processes.hear('b', sample(0), BEGIN)
    processes.list(list([row('a'), row('b')]), BEGIN)
  })

  test('is alive while it is heard, whatever the list says, and then dead', () => {
    const dead = row('b', { isAlive: false })
    processes.hear('b', sample(20), BEGIN + 20 * SECOND_MS)
    processes.list(list([row('a', { seenAt: 20 }), dead]), BEGIN + 20 * SECOND_MS)
    expect(processes.isAlive(processes.shown[1], BEGIN + 20 * SECOND_MS)).toBe(true)
    expect(processes.isAlive(processes.shown[1], BEGIN + 26 * SECOND_MS)).toBe(false)
  })

  test('stays for a while if it was killed', () => {
    const dead = row('b', { isAlive: false })
    processes.list(list([row('a', { seenAt: 100 }), dead]), BEGIN + 100 * SECOND_MS)
    expect(shown()).toEqual(['a', 'b'])
    processes.choose('b')
    processes.list(list([row('a', { seenAt: 130 }), dead]), BEGIN + 130 * SECOND_MS)
    expect(shown()).toEqual(['a'])
    expect(processes.chosen.id).toBe('a')
  })

  test('is forgotten when it was stopped and is not heard any more', () => {
    processes.list(list([row('a')]), BEGIN + 1 * SECOND_MS)
    expect(processes.ids).toEqual(['a', 'b'])
    processes.list(list([row('a')]), BEGIN + 6 * SECOND_MS)
    expect(processes.ids).toEqual(['a'])
  })

  test('is followed by another if it was the own one', () => {
    processes.list(list([row('b')]), BEGIN + 10 * SECOND_MS)
    expect([processes.own.id, shown()]).toEqual(['b', ['b']])
  })
})

describe('after the connection was lost', () => {
  beforeEach(() => {
    processes.load(past('a', 0))
    processes.hear('a', sample(1), BEGIN + 1 * SECOND_MS)
    processes.list(list([row('a', { seenAt: 1 })]), BEGIN + 1 * SECOND_MS)
    processes.disconnect()
  })

  test.each([
    { how: 'was killed', rows: [row('a', { seenAt: 1 })] },
    { how: 'was killed a while ago', rows: [row('a', { seenAt: 1, isAlive: false })] },
    { how: 'was stopped', rows: [] },
  ])('one that starts anew goes on with the samples of the one that $how', ({ rows }) => {
    processes.load(past('b', 5))
    processes.list(list([...rows, row('b', { startedAt: 3, seenAt: 4 })]))
    expect([processes.own.id, shown()]).toEqual(['b', ['b']])
    expect(times(processes.own.samples)).toEqual([0, 1, 5])
    expect(processes.own.replaces).toBe('a')
    processes.list(list([...rows, row('b', { startedAt: 3, seenAt: 9 })]))
    expect(shown()).toEqual(['b'])
  })

  test('one that was there before does not: it has samples of its own', () => {
    processes.load(past('b', 5))
    const dead = row('a', { seenAt: 4, isAlive: false })
    processes.list(list([dead, row('b', { startedAt: 3, seenAt: 20 })]))
    expect([processes.own.id, shown()]).toEqual(['b', ['b', 'a']])
    expect(times(processes.own.samples)).toEqual([5])
  })

  test('the own one stays while it is alive, whoever answers', () => {
    processes.load(past('b', 5))
    processes.list(list([row('a', { seenAt: 4 }), row('b', { startedAt: 3, seenAt: 4 })]))
    expect([processes.own.id, shown()]).toEqual(['a', ['a', 'b']])
    processes.hear('a', sample(6), BEGIN)
    processes.list(list([row('a', { seenAt: 2 }), row('b', { startedAt: 3, seenAt: 4 })]))
    expect(processes.own.id).toBe('a')
  })

  test('one that was replaced and is heard again is another', () => {
    processes.load(past('b', 5))
    const rows = [row('a', { seenAt: 1 }), row('b', { startedAt: 3, seenAt: 4 })]
    processes.list(list(rows))
    processes.hear('a', sample(6), BEGIN)
    processes.list(list(rows), BEGIN)
    expect(shown()).toEqual(['b', 'a'])
  })
})

const shown = () => processes.shown.map(({ id }: Row) => id)

const times = (samples: OpsSample[]) => samples.map(({ at }) => (at - BEGIN) / SECOND_MS)

const sample = (second: number) =>
  ({ at: BEGIN + second * SECOND_MS, compute: { threads: [] } }) as unknown as OpsSample

const past = (process: string, second: number) => ({
  process,
  versions: VERSIONS,
  samples: [sample(second)],
})

const toTime = (second: number) => new Date(BEGIN + second * SECOND_MS).toISOString()

/** Times in seconds. */
function row(
  id: string,
  {
    startedAt = -100,
    seenAt = 0,
    ...rest
  }: Partial<Pick<Row, 'role' | 'isAlive'>> & { startedAt?: number; seenAt?: number } = {},
): Row {
  const times = { startedAt: toTime(startedAt), seenAt: toTime(seenAt) }
  return { id, role: 'web', node: 'v26', url: null, isAlive: true, load: null, ...times, ...rest }
}

const list = (rows: Row[], leftOut = 0) => ({ processes: rows, totals: {}, leftOut })
