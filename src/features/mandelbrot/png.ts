import { crc32, deflateSync } from 'node:zlib'

/**
 * Encodes a PNG (https://www.w3.org/TR/png-3/). fast-png is slower: it compresses in JavaScript.
 */
export function encodePng(
  { width, height }: { width: number; height: number },
  pixels: Uint8Array,
  palette: Uint8Array,
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
    toChunk('PLTE', palette),
    toChunk('IDAT', deflateSync(rows)),
    toChunk('IEND', new Uint8Array()),
  ])
  // Copied: small Buffers share memory, which must not be transferred.
  return new Uint8Array(png)
}

const BITS_PER_PIXEL = 8
const WITH_PALETTE = 3

/** Length, type, data, and a checksum. */
function toChunk(type: string, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(data.length + 12)
  bytes.writeUInt32BE(data.length, 0)
  bytes.write(type, 4, 'latin1')
  bytes.set(data, 8)
  bytes.writeUInt32BE(crc32(bytes.subarray(4, -4)), bytes.length - 4)
  return bytes
}
