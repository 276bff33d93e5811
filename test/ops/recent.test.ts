import { describe, expect, test } from 'vitest'
import { ByName, Durations, Recent } from '../../src/ops/recent.ts'

const MINUTE_MS = 60_000
const BEGIN = 1_800_000_000_000

describe('a window', () => {
  test('has what happened in it, by slices', () => {
    const recent = new Recent(MINUTE_MS, 10, () => ({ count: 0 }))
    const read = (now: number) => recent.read(now).reduce((sum, { count }) => sum + count, 0)
    recent.current(BEGIN).count += 3
    recent.current(BEGIN + 5 * MINUTE_MS).count += 4
    recent.current(BEGIN + 5.9 * MINUTE_MS).count += 5
    expect(read(BEGIN + 10.9 * MINUTE_MS)).toBe(12)
    expect(read(BEGIN + 11 * MINUTE_MS)).toBe(9)
    expect(read(BEGIN + 90 * MINUTE_MS)).toBe(0)
    expect(recent.isEmpty(BEGIN + 90 * MINUTE_MS)).toBe(true)
    recent.current(BEGIN + 90 * MINUTE_MS).count += 1
    expect(read(BEGIN + 90 * MINUTE_MS)).toBe(1)
  })

  test('takes what ended in the slice before', () => {
    const recent = new Recent(MINUTE_MS, 10, () => ({ count: 0 }))
    recent.current(BEGIN).count++
    recent.current(BEGIN - 1).count++
    recent.current(BEGIN).count++
    expect(recent.read(BEGIN).map(({ count }) => count)).toEqual(expect.arrayContaining([1, 2]))
  })
})

describe('values by name', () => {
  test('are shared beyond the limit until one is empty, which makes room', () => {
    const values = new ByName(2, () => new Recent(MINUTE_MS, 1, () => ({ count: 0 })))
    const names = () => [...values].map(([name]) => name)
    for (const name of ['a', 'b', 'c', 'd', 'a']) values.find(name, BEGIN).current(BEGIN).count++
    expect(names()).toEqual(['a', 'b', 'other'])
    expect(values.find('e', BEGIN).current(BEGIN).count).toBe(2)
    const later = BEGIN + 3 * MINUTE_MS
    values.find('b', later).current(later)
    values.find('c', later)
    expect(names()).toEqual(['b', 'c'])
  })
})

describe('durations', () => {
  test('have percentiles that are at most 9 % too high, from microseconds to minutes', () => {
    for (const scale of [0.001, 1, 600]) {
      const durations = new Durations()
      for (let index = 1; index <= 1_000; index++) durations.add(index * scale)
      for (const share of [0.01, 0.5, 0.99]) {
        const exact = share * 1_000 * scale
        expect(durations.percentile(share)).toBeGreaterThanOrEqual(exact * 0.999)
        expect(durations.percentile(share)).toBeLessThan(exact * 1.091)
      }
    }
  })

  test('may be added several at once, and summed', () => {
    const [one, other] = [new Durations(), new Durations()]
    one.add(1, 10_000)
    other.add(50)
    const { count, totalMs, maxMs } = Durations.sum([one, other])
    expect({ count, totalMs, maxMs }).toEqual({ count: 10_001, totalMs: 10_050, maxMs: 50 })
    expect(Durations.sum([one, other]).percentile(0.5)).toBeLessThan(1.091)
  })

  test('of no length, and of days, have a bucket', () => {
    const durations = new Durations()
    for (const ms of [0, -1, 864e5]) durations.add(ms)
    expect(durations.percentile(0.5)).toBe(0.001)
    expect(durations.percentile(1)).toBeGreaterThan(600_000)
  })
})
