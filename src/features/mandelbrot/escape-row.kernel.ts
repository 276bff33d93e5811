// AssemblyScript, not TypeScript: escape-row.ts compiled ahead, four pixels at a time.
// docs/kernels.md has the rules.
//
// An operation on an f64x2 is two of the doubles that JavaScript has, each rounded the same way, so
// with the same operations in the same order every pixel comes out the same to the last bit.

/** The longest row that fits the memory below. */
export const MAX_WIDTH: i32 = 4096

/** Where the row that was computed last lies in the memory: the counts as i32, the norms as f32. */
export const COUNTS: usize = memory.data(4096 * 4, 16)
export const NORMS: usize = memory.data(4096 * 4, 16)

/** Up to three pixels more than `width` are computed, and are nobody's. */
export function escapeRow(
  left: f64,
  step: f64,
  imaginary: f64,
  width: i32,
  iterations: i32,
  bailout: f64,
): void {
  const lefts = f64x2.splat(left)
  const steps = f64x2.splat(step)
  const bailouts = f64x2.splat(bailout)
  const ci = f64x2.splat(imaginary)
  const zero = f64x2.splat(0)
  const four = f64x2.splat(4)

  // Each step of a pixel waits for the one before, so two pairs of pixels, a and b, keep the
  // processor busy.
  let columnA = f64x2(0, 1)
  let columnB = f64x2(2, 3)
  for (let x = 0; x < width; x += 4) {
    const crA = f64x2.add(lefts, f64x2.mul(columnA, steps))
    const crB = f64x2.add(lefts, f64x2.mul(columnB, steps))
    let zrA = zero
    let zrB = zero
    let ziA = zero
    let ziB = zero
    let rrA = zero
    let rrB = zero
    let iiA = zero
    let iiB = zero
    let countA = zero
    let countB = zero
    let normA = f64x2.splat(Infinity)
    let normB = normA

    for (let n = 0; n < iterations; n++) {
      ziA = f64x2.add(f64x2.mul(f64x2.add(zrA, zrA), ziA), ci)
      ziB = f64x2.add(f64x2.mul(f64x2.add(zrB, zrB), ziB), ci)
      zrA = f64x2.add(f64x2.sub(rrA, iiA), crA)
      zrB = f64x2.add(f64x2.sub(rrB, iiB), crB)
      rrA = f64x2.mul(zrA, zrA)
      rrB = f64x2.mul(zrB, zrB)
      iiA = f64x2.mul(ziA, ziA)
      iiB = f64x2.mul(ziB, ziB)
      const nowA = f64x2.add(rrA, iiA)
      const nowB = f64x2.add(rrB, iiB)

      // All ones where a pixel has not escaped: -1 to the count, and not a number to the norm,
      // which pmin passes over. One that escapes before its neighbours goes on growing, so the
      // smallest norm is the first; NaN is passed over too.
      const insideA = f64x2.le(nowA, bailouts)
      const insideB = f64x2.le(nowB, bailouts)
      countA = i64x2.sub(countA, insideA)
      countB = i64x2.sub(countB, insideB)
      normA = f64x2.pmin(normA, v128.or(nowA, insideA))
      normB = f64x2.pmin(normB, v128.or(nowB, insideB))
      if (!v128.any_true(v128.or(insideA, insideB))) break
    }

    v128.store(COUNTS + ((<usize>x) << 2), v128.shuffle<i32>(countA, countB, 0, 2, 4, 6))
    v128.store(
      NORMS + ((<usize>x) << 2),
      v128.shuffle<f32>(f32x4.demote_f64x2_zero(normA), f32x4.demote_f64x2_zero(normB), 0, 1, 4, 5),
    )
    columnA = f64x2.add(columnA, four)
    columnB = f64x2.add(columnB, four)
  }
}
