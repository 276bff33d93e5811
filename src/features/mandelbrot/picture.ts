import { crc32, deflateSync } from 'node:zlib'
import { MAX_ITERATIONS } from './contract.ts'
import { BAILOUT, type EscapedRow } from './escape-row.ts'

/** The palette index of the set: black. */
const INSIDE = 0
const COLOURS = 255

/** The palette starts here and repeats after this many doublings of the iterations. */
const DOUBLINGS = 4
const START = 0.52

/** Places from 0 to 1, with red, green and blue. */
const STOPS = [
  [0, 0, 7, 100],
  [0.16, 32, 107, 203],
  [0.42, 237, 255, 255],
  [0.64, 255, 170, 0],
  [0.86, 20, 4, 30],
  [1, 0, 7, 100],
] as const

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

/** Steps per iteration, so that colours fade into each other. */
const STEPS = 32

/** Palette indices by step: logarithmic, because steps are dense near the set. */
const COLOUR_AT = Uint8Array.from({ length: MAX_ITERATIONS * STEPS }, (_, step) => {
  const rounds = Math.log2((step + 1) / STEPS) / DOUBLINGS + START
  return INSIDE + 1 + Math.floor((rounds - Math.floor(rounds)) * COLOURS)
})

/** Exponent and 4 bits of mantissa: roughly the logarithm of a float. */
const SHIFT = 23 - 4
const toBits = (float: number) => new Int32Array(Float32Array.of(float).buffer)[0] ?? 0
const toFloat = (bits: number) => new Float32Array(Int32Array.of(bits).buffer)[0] ?? 0
const FIRST_BUCKET = toBits(BAILOUT) >> SHIFT
/** No point is further out when it escapes. */
const LAST_BUCKET = toBits(2 * BAILOUT ** 2) >> SHIFT

/** Steps between an escape and the end of its iteration. */
const EARLY_BY = Uint8Array.from({ length: LAST_BUCKET - FIRST_BUCKET + 1 }, (_, bucket) => {
  const norm = toFloat((FIRST_BUCKET + bucket + 0.5) * 2 ** SHIFT)
  return Math.min(STEPS - 1, Math.floor(STEPS * Math.log2(Math.log(norm) / Math.log(BAILOUT))))
})

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

/**
 * Encodes a PNG (https://www.w3.org/TR/png-3/). fast-png is slower: it compresses in JavaScript.
 */
export function encodePng(
  { width, height }: { width: number; height: number },
  pixels: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([BITS_PER_PIXEL, WITH_PALETTE], 8)
  // Each row starts with its filter: 0, none, suits a palette best.
  const rows = new Uint8Array((width + 1) * height)
  for (let row = 0; row < height; row++)
    rows.set(pixels.subarray(row * width, (row + 1) * width), row * (width + 1) + 1)
  const png = Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    toChunk('IHDR', header),
    toChunk('PLTE', PALETTE),
    toChunk('IDAT', deflateSync(rows)),
    toChunk('IEND', new Uint8Array()),
  ])
  // Copied: small Buffers share memory, which must not be transferred.
  return new Uint8Array(png)
}

const BITS_PER_PIXEL = 8
const WITH_PALETTE = 3

function toChunk(type: string, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(data.length + 12)
  bytes.writeUInt32BE(data.length, 0)
  bytes.write(type, 4, 'latin1')
  bytes.set(data, 8)
  bytes.writeUInt32BE(crc32(bytes.subarray(4, -4)), bytes.length - 4)
  return bytes
}
