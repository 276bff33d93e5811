import { MAX_ITERATIONS } from './contract.ts'
import { BAILOUT, type EscapedRow } from './escape-row.ts'

/** The palette index of the set, black; the others are for points that escape. */
const INSIDE = 0
const COLOURS = 255

/**
 * How many times the number of iterations doubles while the colours go round once, and where on the
 * way they start.
 */
const DOUBLINGS = 4
const START = 0.52

/** One way round: where, from 0 to 1, and red, green and blue there. */
const STOPS = [
  [0, 0, 7, 100],
  [0.16, 32, 107, 203],
  [0.42, 237, 255, 255],
  [0.64, 255, 170, 0],
  [0.86, 20, 4, 30],
  [1, 0, 7, 100],
] as const

/** Red, green and blue of each palette index. */
export const PALETTE = new Uint8Array(3 * (COLOURS + 1))
for (let colour = 0; colour < COLOURS; colour++)
  PALETTE.set(mixAt(colour / COLOURS), 3 * (INSIDE + 1 + colour))

function mixAt(place: number): number[] {
  const next = STOPS.findIndex(([stop]) => stop > place)
  const [from, ...before] = STOPS[next - 1] ?? STOPS[0]
  const [to, ...after] = STOPS[next] ?? STOPS[0]
  const share = (place - from) / (to - from)
  return before.map((value, channel) => Math.round(value + share * ((after[channel] ?? 0) - value)))
}

/** Into how many colours an iteration is divided at most, so that one fades into the next. */
const STEPS = 32

/**
 * The palette index of a point by its iterations in steps. They are counted in doublings: near the
 * set they lie dense.
 */
const COLOUR_AT = Uint8Array.from({ length: MAX_ITERATIONS * STEPS }, (_, step) => {
  const rounds = Math.log2((step + 1) / STEPS) / DOUBLINGS + START
  return INSIDE + 1 + Math.floor((rounds - Math.floor(rounds)) * COLOURS)
})

/**
 * A float's top bits are its logarithm, roughly: the exponent, and as much of the mantissa as
 * matters here.
 */
const MANTISSA_BITS = 4
const SHIFT = 23 - MANTISSA_BITS
const FIRST_BUCKET = bitsOf(BAILOUT) >> SHIFT
/** A point that was inside an iteration ago is not further out than this. */
const LAST_BUCKET = bitsOf(2 * BAILOUT ** 2) >> SHIFT

/**
 * By how many steps a point escaped before its iteration was over: the further out it got, the
 * more. With logarithms for each pixel instead of the two tables, a picture of 200 iterations took
 * a third longer, and with the kernel two thirds.
 */
const EARLY_BY = Uint8Array.from({ length: LAST_BUCKET - FIRST_BUCKET + 1 }, (_, bucket) => {
  const norm = floatOf((FIRST_BUCKET + bucket + 0.5) * 2 ** SHIFT)
  return Math.min(STEPS - 1, Math.floor(STEPS * Math.log2(Math.log(norm) / Math.log(BAILOUT))))
})

/** Palette indices for a row of points, into `pixels`. */
export function colourRow(
  { counts, norms }: EscapedRow,
  iterations: number,
  pixels: Uint8Array,
): void {
  const bits = new Int32Array(norms.buffer, norms.byteOffset, norms.length)
  for (let column = 0; column < pixels.length; column++) {
    const count = counts[column] ?? 0
    pixels[column] = count === iterations ? INSIDE : colourOf(count, bits[column] ?? 0)
  }
}

function colourOf(count: number, bits: number): number {
  const early = EARLY_BY[(bits >> SHIFT) - FIRST_BUCKET] ?? 0
  return COLOUR_AT[(count + 1) * STEPS - 1 - early] ?? INSIDE
}

function bitsOf(float: number): number {
  const cell = new DataView(new ArrayBuffer(4))
  cell.setFloat32(0, float)
  return cell.getInt32(0)
}

function floatOf(bits: number): number {
  const cell = new DataView(new ArrayBuffer(4))
  cell.setInt32(0, bits)
  return cell.getFloat32(0)
}
