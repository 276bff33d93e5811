import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createPool, type RowDataPacket } from 'mysql2'

/**
 * The floor that offloop is measured against: the same two reads with nothing between node:http and mysql2. No router,
 * validation, deadlines, ids, logs or headers, and prepared statements with callbacks, which is mysql2's fastest way.
 */
const COLUMNS = 'id, name, price, stock, version, created_at as createdAt, updated_at as updatedAt'
const BY_ID = `select ${COLUMNS} from product where id = ?`
const LIST = `select ${COLUMNS} from product where id > ? order by id limit ?`
const LIMIT = 20

const pool = createPool({
  uri: process.env['DATABASE_URL'] ?? '',
  connectionLimit: Number(process.env['DATABASE_POOL_SIZE'] ?? 10),
  timezone: 'Z',
})

const server = createServer((request, response) => {
  const id = request.url?.match(/^\/v1\/products\/(\d+)$/)?.[1]
  const answer = (error: Error | null, value: unknown) => {
    const body = JSON.stringify(error ? { error: error.message } : value)
    // With its length the answer goes out whole; without, Node would send it in chunks.
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }
    response.writeHead(error ? 500 : 200, headers).end(body)
  }
  if (id) pool.execute<RowDataPacket[]>(BY_ID, [Number(id)], (error, rows) => answer(error, rows?.[0]))
  else
    pool.execute<RowDataPacket[]>(LIST, [0, LIMIT + 1], (error, rows) =>
      answer(error, { items: rows?.slice(0, LIMIT), nextCursor: rows?.at(LIMIT - 1)?.['id'] }),
    )
})

server.listen(0, '127.0.0.1', () => process.send?.({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }))
process.on('disconnect', () => process.exit())
