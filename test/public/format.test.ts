import { describe, expect, test } from 'vitest'

// The page's scripts have a type check of their own.
const { bytes, duration, exactNumber, number, percent } = await import(
  new URL('../../public/format.js', import.meta.url).href
)

describe('numbers', () => {
  test.each([
    [0, '0'],
    [-0, '0'],
    [0.004, '0.004'],
    [0.123, '0.123'],
    [0.0004, '0.0004'],
    [0.00012345, '0.000123'],
    [0.1235, '0.124'],
    [-0.0049, '-0.0049'],
    [1.234, '1.23'],
    [12.34, '12.3'],
    [99.96, '100'],
    [123.4, '123'],
    [-1234.5, '-1,235'],
    [1_234_567, '1,234,567'],
    [9_007_199_254_740_991, '9,007,199,254,740,991'],
    [1.234e-7, '1.23E-7'],
    [5e-324, '5E-324'],
    [1.234e21, '1.23E21'],
    [1.7976931348623157e308, '1.8E308'],
  ])('%d is %s', (value, text) => {
    expect(number(value)).toBe(text)
  })

  test.each([null, undefined, Number.NaN, Number.POSITIVE_INFINITY])('%s is not known', (value) => {
    expect([number(value), percent(value), duration(value), bytes(value)]).toEqual([
      '–',
      '–',
      '–',
      '–',
    ])
  })

  test.each([
    [
      '12345678901234567890123456789012345678',
      '12,345,678,901,234,567,890,123,456,789,012,345,678',
    ],
    ['-9007199254740993', '-9,007,199,254,740,993'],
    ['9007199254740993.250', '9,007,199,254,740,993.250'],
    ['0.00000000000000000001', '0.00000000000000000001'],
  ])('%s keeps all its digits', (digits, text) => {
    expect(exactNumber(digits)).toBe(text)
  })
})

test('shares, times and sizes have three digits, too', () => {
  expect([percent(0.00001), percent(0.5), percent(1)]).toEqual(['0.001 %', '50 %', '100 %'])
  expect([duration(0), duration(0.0004), duration(0.25), duration(1.234), duration(1_500)]).toEqual(
    ['0 ms', '0.4 µs', '250 µs', '1.23 ms', '1.5 s'],
  )
  expect([bytes(0), bytes(30), bytes(1_536), bytes(5 * 1024 ** 3)]).toEqual([
    '0 B',
    '30 B',
    '1.5 KiB',
    '5 GiB',
  ])
})
