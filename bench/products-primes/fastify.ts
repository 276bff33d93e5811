import type { AddressInfo } from 'node:net'
import helmet from '@fastify/helmet'
import underPressure from '@fastify/under-pressure'
import { fastify } from 'fastify'
import metrics from 'fastify-metrics'
import { createPool, type ResultSetHeader, type RowDataPacket } from 'mysql2/promise'
import { Piscina } from 'piscina'

/**
 * The same endpoints by Fastify as it is usually set up: security headers, metrics by route,
 * request ids, its own log, validation and serialisation by JSON schemas, load shedding by
 * `under-pressure`, mysql2's promises, threads by Piscina.
 */
const MAX_EVENT_LOOP_DELAY_MS = 1_000
const DUPLICATE_KEY = 'ER_DUP_ENTRY'

const COLUMNS = 'id, name, price, stock, version, created_at as createdAt, updated_at as updatedAt'
const BY_ID = `select ${COLUMNS} from product where id = ?`
const PAGE = `select ${COLUMNS} from product where id > ? order by id limit ?`
const INSERT = 'insert into product (name, price, stock) values (?, ?, ?)'

const Input = {
  type: 'object',
  required: ['name', 'price', 'stock'],
  additionalProperties: false,
  properties: {
    name: { type: 'string', minLength: 1, maxLength: 200 },
    price: { type: 'string', pattern: '^\\d{1,10}(\\.\\d{1,2})?$' },
    stock: { type: 'integer', minimum: 0, maximum: 4_294_967_295 },
  },
}
const Product = {
  type: 'object',
  properties: {
    id: { type: 'integer' },
    ...Input.properties,
    version: { type: 'integer' },
    createdAt: { type: 'string', format: 'date-time' },
    updatedAt: { type: 'string', format: 'date-time' },
  },
}
const Page = {
  type: 'object',
  properties: {
    items: { type: 'array', items: Product },
    nextCursor: { type: ['string', 'null'] },
  },
}
const PageQuery = {
  type: 'object',
  properties: {
    limit: { type: 'integer', minimum: 1, maximum: 100, default: 20 },
    cursor: { type: 'string' },
  },
}
const Id = {
  type: 'object',
  properties: { id: { type: 'integer', minimum: 1, maximum: 4_294_967_295 } },
}
const Range = {
  type: 'object',
  required: ['to'],
  properties: { to: { type: 'integer', minimum: 0, maximum: 50_000_000 } },
}
const Count = {
  type: 'object',
  properties: { to: { type: 'integer' }, count: { type: 'integer' } },
}

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
const threads = Number(process.env['COMPUTE_THREADS'] ?? 1)
const piscina = new Piscina<number, number>({
  filename: new URL('./primes-worker.ts', import.meta.url).href,
  minThreads: threads,
  maxThreads: threads,
})

const app = fastify({ logger: true, requestIdHeader: 'x-request-id' })
await app.register(helmet)
await app.register(underPressure, { maxEventLoopDelay: MAX_EVENT_LOOP_DELAY_MS })
// Its second measure of the same, a summary with quantiles, is left out: offloop has none.
await app.register(metrics.default, {
  endpoint: '/metrics',
  routeMetrics: { enabled: { histogram: true, summary: false } },
})
app.addHook('onRequest', async (request, reply) => {
  reply.header('x-request-id', request.id)
})

app.get<{ Params: { id: number } }>(
  '/v1/products/:id',
  { schema: { params: Id, response: { 200: Product } } },
  async ({ params }, reply) =>
    (await findProduct(params.id)) ?? reply.code(404).send({ message: 'There is no such product' }),
)

app.get<{ Querystring: { limit: number; cursor?: string } }>(
  '/v1/products',
  { schema: { querystring: PageQuery, response: { 200: Page } } },
  async ({ query: { limit, cursor } }) => {
    const [items] = await pool.execute<RowDataPacket[]>(PAGE, [Number(cursor ?? 0), limit + 1])
    if (items.length <= limit) return { items, nextCursor: null }
    items.pop()
    return { items, nextCursor: String(items.at(-1)?.['id']) }
  },
)

app.post<{ Body: NewProduct }>(
  '/v1/products',
  { schema: { body: Input, response: { 201: Product } } },
  async ({ body: { name, price, stock } }, reply) => {
    try {
      const [{ insertId }] = await pool.execute<ResultSetHeader>(INSERT, [name, price, stock])
      reply.code(201).header('location', `/v1/products/${insertId}`)
      return await findProduct(insertId)
    } catch (error) {
      if ((error as { code?: string }).code !== DUPLICATE_KEY) throw error
      return reply.code(409).send({ message: 'There is a product of that name already' })
    }
  },
)

app.get<{ Querystring: { to: number } }>(
  '/v1/primes',
  { schema: { querystring: Range, response: { 200: Count } } },
  async ({ query: { to } }) => ({ to, count: await piscina.run(to) }),
)

async function findProduct(id: number): Promise<RowDataPacket | undefined> {
  const [[product]] = await pool.execute<RowDataPacket[]>(BY_ID, [id])
  return product
}

await app.listen({ port: 0, host: '127.0.0.1' })
process.send?.({ url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}` })
process.on('disconnect', () => process.exit())
