import { once } from 'node:events'
import { createWriteStream, existsSync } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

const REGIONS = ['North', 'South', 'East', 'West', 'Central', 'Coast', 'Highlands', 'Islands']
const CHANNELS = ['web', 'shop', 'phone', 'partner']
const PRODUCTS = 1_000
const CUSTOMERS = 200_000
const FIRST_ORDER_MS = Date.UTC(2024, 0, 1)
const CHUNK_CHARACTERS = 1024 * 1024
/** More than any row has. */
const MAX_ROW_BYTES = 200
const HEADER =
  'order_id,ordered_at,region,channel,customer,product,quantity,price,discount,total,gift\n'

/**
 * Writes a sales file of `bytes` bytes, or a row or two less, unless it is there: always the same
 * one.
 */
export async function ensureSalesFile(file: string, bytes: number): Promise<void> {
  if (existsSync(file)) return
  await mkdir(dirname(file), { recursive: true })
  const output = createWriteStream(`${file}.part`)
  const random = randomFrom(20_240_101)
  let chunk = HEADER
  let written = 0
  for (let order = 1; written + chunk.length < bytes - MAX_ROW_BYTES; order++) {
    chunk += rowOf(order, random)
    if (chunk.length < CHUNK_CHARACTERS) continue
    written += chunk.length
    if (!output.write(chunk)) await once(output, 'drain')
    chunk = ''
  }
  output.end(chunk)
  await once(output, 'close')
  await rename(`${file}.part`, file)
}

function rowOf(order: number, random: () => number): string {
  const orderedAt = new Date(FIRST_ORDER_MS + order * 7_000 + Math.floor(random() * 7_000))
    .toISOString()
    .slice(0, 19)
  // Squared: few products and customers make most of the sales.
  const product = Math.floor(random() ** 2 * PRODUCTS)
  const customer = Math.floor(random() ** 2 * CUSTOMERS)
  const quantity = 1 + Math.floor(random() * 9)
  const price = 5 + ((product * 37) % 20_000) / 100
  const discount = random() < 0.7 ? 0 : Math.floor(random() * 30) / 100
  const total = quantity * price * (1 - discount)
  return `${order},${orderedAt},${REGIONS[Math.floor(random() * 8)]},${CHANNELS[Math.floor(random() * 4)]},customer ${customer},product ${product},${quantity},${price.toFixed(2)},${discount || ''},${total.toFixed(2)},${random() < 0.05}\n`
}

/** Mulberry32: the same numbers from 0 to 1 on every machine. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
