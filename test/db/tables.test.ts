import fc from 'fast-check'
import { expect, test } from 'vitest'
import { toTimestamp } from '../../src/db/tables.ts'

const YEARS = {
  min: new Date('1000-01-01T00:00:00.000Z'),
  max: new Date('9999-12-31T23:59:59.999Z'),
  noInvalidDate: true,
}

test('a timestamp is what toISOString() gives', () => {
  fc.assert(
    fc.property(fc.date(YEARS), (date) => {
      expect(toTimestamp(date)).toBe(date.toISOString())
    }),
  )
})

test.each([YEARS.min, YEARS.max, new Date('2024-02-29T09:05:07.003Z')])('%j is one', (date) => {
  expect(toTimestamp(date)).toBe(date.toISOString())
})
