import { expect, test } from 'vitest'

// The page's scripts have a type check of their own.
const { percentile } = await import(new URL('../../public/light-requests.js', import.meta.url).href)

test('a percentile is one of the values, by the nearest rank', () => {
  const values = [30, 10, 1_000, 20]
  expect([0.01, 0.25, 0.5, 0.51, 0.99, 1].map((share) => percentile(values, share))).toEqual([
    10, 10, 20, 30, 1_000, 1_000,
  ])
  expect(values).toEqual([30, 10, 1_000, 20])
})

test('there is none without values', () => {
  expect(percentile([], 0.99)).toBeUndefined()
})
