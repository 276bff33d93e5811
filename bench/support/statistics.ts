/**
 * The smallest value that at least `share` of them do not exceed (nearest rank): 0.99 for the 99th
 * percentile.
 */
export function percentile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort()
  const rank = Math.max(1, Math.ceil(share * sorted.length))
  return sorted[rank - 1] ?? Number.NaN
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort()
  const middle = sorted.length / 2
  return (
    ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2
  )
}

/** All of them together; 0 if there are none. */
export const add = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0)

/**
 * The median of each round's ratio: whatever else the machine does in a round slows both of its
 * figures.
 */
export const medianRatio = (values: readonly number[], others: readonly number[]) =>
  median(values.map((value, round) => value / (others[round] ?? Number.NaN)))
