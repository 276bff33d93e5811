import { crc32, inflateSync } from 'node:zlib'

const SIGNATURE = '89504e470d0a1a0a'

/**
 * Reads a PNG that has a palette and no filters. @throws Error when it breaks the format or is
 * another kind.
 */
export function decodePng(png: Buffer) {
  if (png.subarray(0, 8).toString('hex') !== SIGNATURE) throw new Error('Not a PNG')
  const chunks = new Map(chunksOf(png))
  if ([...chunks.keys()].join() !== 'IHDR,PLTE,IDAT,IEND')
    throw new Error(`Chunks: ${[...chunks.keys()]}`)
  const [header, palette, data] = ['IHDR', 'PLTE', 'IDAT'].map(
    (type) => chunks.get(type) as Buffer,
  ) as [Buffer, Buffer, Buffer]
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)]
  // 8 bits, with a palette, and the only compression, filtering and interlacing that are no
  // trouble.
  if (header.subarray(8).toString('hex') !== '0803000000')
    throw new Error(`Header: ${header.toString('hex')}`)

  const rows = inflateSync(data)
  if (rows.length !== (width + 1) * height)
    throw new Error(`${rows.length} bytes for ${width} × ${height} pixels`)
  const pixels = Buffer.alloc(width * height)
  for (let row = 0; row < height; row++) {
    const start = row * (width + 1)
    if (rows[start] !== 0) throw new Error(`Row ${row} has filter ${rows[start]}`)
    rows.copy(pixels, row * width, start + 1, start + 1 + width)
  }
  return { width, height, palette, pixels }
}

function* chunksOf(png: Buffer): Generator<[string, Buffer]> {
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at)
    const type = png.toString('latin1', at + 4, at + 8)
    const end = at + 8 + length
    if (crc32(png.subarray(at + 4, end)) !== png.readUInt32BE(end))
      throw new Error(`The checksum of ${type} is wrong`)
    yield [type, png.subarray(at + 8, end)]
    at = end + 4
  }
}
