import { MAX_ITERATIONS } from './contract.ts'
import { BAILOUT, type EscapedRow } from './escape-row.ts'

/** The palette index of the set, black; the others are for points that escape. */
const INSIDE = 0
const COLOURS = 255

/** The colours go round once per this many doublings of the iterations, starting at this place. */
const DOUBLINGS = 4
const START = 0.52

/** One way round: a place from 0 to 1, and red, green and blue there. */
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

/** Each iteration is divided into this many steps, so that its colour fades into the next. */
const STEPS = 32

/** The palette index for a number of steps: logarithmic, because near the set they lie dense. */
const COLOUR_AT = Uint8Array.from({ length: MAX_ITERATIONS * STEPS }, (_, step) => {
  const rounds = Math.log2((step + 1) / STEPS) / DOUBLINGS + START
  return INSIDE + 1 + Math.floor((rounds - Math.floor(rounds)) * COLOURS)
})

/** A float's top bits are roughly its logarithm: the exponent and 4 bits of the mantissa. */
const SHIFT = 23 - 4
const toBits = (float: number) => new Int32Array(Float32Array.of(float).buffer)[0] ?? 0
const toFloat = (bits: number) => new Float32Array(Int32Array.of(bits).buffer)[0] ?? 0
const FIRST_BUCKET = toBits(BAILOUT) >> SHIFT
/** A point that was inside one iteration ago is not further out than this. */
const LAST_BUCKET = toBits(2 * BAILOUT ** 2) >> SHIFT

/**
 * By how many steps a point escaped before its iteration was over: the further out, the more. Two
 * tables instead of logarithms per pixel save a third of the time of a cheap picture.
 */
const EARLY_BY = Uint8Array.from({ length: LAST_BUCKET - FIRST_BUCKET + 1 }, (_, bucket) => {
  const norm = toFloat((FIRST_BUCKET + bucket + 0.5) * 2 ** SHIFT)
  return Math.min(STEPS - 1, Math.floor(STEPS * Math.log2(Math.log(norm) / Math.log(BAILOUT))))
})

/** Writes the palette indices for a row of points into `pixels`. */
export function colourRow(
  { counts, norms }: EscapedRow,
  iterations: number,
  pixels: Uint8Array,
): void {
  const bits = new Int32Array(norms.buffer, norms.byteOffset, norms.length)
  for (let column = 0; column < pixels.length; column++) {
    const count = counts[column] ?? 0
    pixels[column] = count === iterations ? INSIDE : findColour(count, bits[column] ?? 0)
  }
}

function findColour(count: number, bits: number): number {
  const early = EARLY_BY[(bits >> SHIFT) - FIRST_BUCKET] ?? 0
  return COLOUR_AT[(count + 1) * STEPS - 1 - early] ?? INSIDE
}
