import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { detachedContext } from '@offloop/workpool/task'
import { createPool, type ResultSetHeader, type RowDataPacket } from 'mysql2'
import { countPrimesIn } from '../../src/features/primes/compute.ts'

/**
 * The floor that offloop is measured against: the same reads, the same insert and the same primes
 * with nothing between node:http and mysql2. No router, validation, deadlines, ids, logs, headers
 * or threads, and prepared statements with callbacks, which is mysql2's fastest way.
 */
const COLUMNS = 'id, name, price, stock, version, created_at as createdAt, updated_at as updatedAt'
const BY_ID = `select ${COLUMNS} from product where id = ?`
const LIST = `select ${COLUMNS} from product where id > ? order by id limit ?`
const CREATE =
  'insert into product (name, price, stock, created_at, updated_at) values (?, ?, ?, ?, ?)'
const LIMIT = 20

interface NewProduct {
  name: string
  price: string
  stock: number
}

const pool = createPool({
  uri: process.env['DATABASE_URL'] ?? '',
  connectionLimit: Number(process.env['DATABASE_POOL_SIZE'] ?? 10),
  timezone: 'Z',
})

const server = createServer((request, response) => {
  const { url = '', method } = request
  const [, id] = url.match(/^\/v1\/products\/(\d+)$/) ?? []
  const [, to] = url.match(/^\/v1\/primes\?to=(\d+)$/) ?? []
  if (id)
    pool.execute<RowDataPacket[]>(BY_ID, [Number(id)], (error, rows) =>
      answer(response, error, rows?.[0]),
    )
  else if (to)
    answer(response, null, { count: countPrimesIn({ from: 0, to: Number(to) }, detachedContext) })
  else if (method === 'POST') create(request, response)
  else
    pool.execute<RowDataPacket[]>(LIST, [0, LIMIT + 1], (error, rows) =>
      answer(response, error, {
        items: rows?.slice(0, LIMIT),
        nextCursor: rows?.at(LIMIT - 1)?.['id'],
      }),
    )
})

/** The times are set here, so that nothing has to be read back. */
async function create(request: IncomingMessage, response: ServerResponse) {
  const { name, price, stock } = (await json(request)) as NewProduct
  const now = new Date()
  pool.execute<ResultSetHeader>(CREATE, [name, price, stock, now, now], (error, result) =>
    answer(response, error, {
      id: result?.insertId,
      name,
      price,
      stock,
      version: 1,
      createdAt: now,
      updatedAt: now,
    }),
  )
}

function answer(response: ServerResponse, error: Error | null, value: unknown) {
  const body = JSON.stringify(error ? { error: error.message } : value)
  // With its length the answer goes out whole; without, Node would send it in chunks.
  const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }
  response.writeHead(error ? 500 : 200, headers).end(body)
}

server.listen(0, '127.0.0.1', () =>
  process.send?.({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }),
)
process.on('disconnect', () => process.exit())
