/**
 * Bars from a common zero line, as shares of the width: where each starts, how long it is, and where
 * zero is. Negative values lie left of zero; unknown ones, NaN, have no length.
 *
 * @param {number[]} values
 * @returns {{ from: number, length: number, zero: number }[]}
 */
export function toBars(values) {
  const known = values.filter(Number.isFinite)
  // Divided first, because the span of large doubles is no double.
  const largest = Math.max(...known.map(Math.abs), Number.MIN_VALUE)
  const below = Math.max(...known.map((value) => -value), 0) / largest
  const above = Math.max(...known, 0) / largest
  const span = below + above || 1
  const zero = below / span
  return values.map((value) => {
    const length = Number.isFinite(value) ? Math.abs(value) / largest / span : 0
    return { from: value < 0 ? zero - length : zero, length, zero }
  })
}
