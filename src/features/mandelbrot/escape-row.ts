/** A row of points, `step` apart, that starts at `left` + `imaginary` i. */
export interface Line {
  left: number
  step: number
  imaginary: number
  width: number
  iterations: number
}

/**
 * What became of each point. Overwritten by the next row: copying it would be the larger part of a
 * cheap one.
 */
export interface EscapedRow {
  /** How many iterations it stayed inside; all of them for a point of the set. */
  counts: Int32Array
  /** The square of its distance to 0 when it had left; means nothing for a point of the set. */
  norms: Float32Array
}

/**
 * The square of the distance where a point counts as gone: 256, because the further out, the
 * smoother the colours.
 */
export const BAILOUT = 2 ** 16

let counts = new Int32Array(0)
let norms = new Float32Array(0)

/**
 * Iterates z ← z² + c for each point c. Nothing is skipped that is known beforehand, such as the
 * points of the set's large disc: the point here is work that is heavy. `escape-row.kernel.ts` is
 * the same, operation for operation.
 */
export function escapeRow({ left, step, imaginary, width, iterations }: Line): EscapedRow {
  if (counts.length < width) {
    counts = new Int32Array(width)
    norms = new Float32Array(width)
  }
  for (let column = 0; column < width; column++) {
    const cr = left + column * step
    let zr = 0
    let zi = 0
    let rr = 0
    let ii = 0
    let norm = 0
    let count = 0
    for (; count < iterations; count++) {
      zi = (zr + zr) * zi + imaginary
      zr = rr - ii + cr
      rr = zr * zr
      ii = zi * zi
      norm = rr + ii
      if (norm > BAILOUT) break
    }
    counts[column] = count
    norms[column] = norm
  }
  return { counts, norms }
}
