import { expect, test } from 'vitest'

// The page's scripts have a type check of their own.
const { toBars } = await import(
  new URL('../../public/panels/reports/bars.js', import.meta.url).href
)

test.each([
  ['positive ones from the left edge', [1, 4], [0, 0], [0.25, 1], 0],
  ['negative ones from the right edge', [-1, -4], [0.75, 0], [0.25, 1], 1],
  ['both to their side of zero', [3, -1, 0], [0.25, 0, 0.25], [0.75, 0.25, 0], 0.25],
  ['the largest doubles', [Number.MAX_VALUE, -Number.MAX_VALUE], [0.5, 0], [0.5, 0.5], 0.5],
  ['nothing but zeros', [0, -0], [0, 0], [0, 0], 0],
  ['unknown ones without a length', [Number.NaN, 2], [0, 0], [0, 1], 0],
  ['none at all', [], [], [], undefined],
])('bars are drawn from one zero line: %s', (_, values, from, length, zero) => {
  const bars: Bar[] = toBars(values)
  expect(bars.map((bar) => bar.from)).toEqual(from)
  expect(bars.map((bar) => bar.length)).toEqual(length)
  expect(bars[0]?.zero).toBe(zero)
})

interface Bar {
  from: number
  length: number
  zero: number
}
