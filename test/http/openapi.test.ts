import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, type Operation, readApi } from '../support/api.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'

let service: Awaited<ReturnType<typeof startService>>
let api: Awaited<ReturnType<typeof readApi>>

beforeAll(async () => {
  service = await startService()
  api = await readApi(service.url)
})
afterAll(() => service.close())

describe('the OpenAPI document', () => {
  test('names every operation, each by a name of its own', () => {
    const names = api.operations.map(({ operationId }) => operationId)
    expect(names).toEqual(names.filter(Boolean))
    expect(new Set(names).size).toBe(names.length)
  })

  test('has no schema that nothing can satisfy: parts that each refuse what the others have', () => {
    expect(JSON.stringify(api.document.components.schemas)).not.toContain('"allOf"')
  })

  test('tells the defaults of parameters', () => {
    const defaults = api.operations.flatMap(({ operationId, parameters }) =>
      parameters.flatMap(({ name, schema }) =>
        'default' in schema ? [[operationId, name, schema.default]] : [],
      ),
    )
    expect(defaults).toEqual(
      expect.arrayContaining([
        ['listProducts', 'limit', 20],
        ['countPrimes', 'from', 0],
        ['countPrimes', 'mode', 'offload'],
        ['drawMandelbrot', 'width', 960],
        ['readReport', 'format', 'json'],
      ]),
    )
  })

  test.each([
    ['listProducts', ['200', '304', '422', '503', '504']],
    ['createProduct', ['201', '400', '409', '413', '415', '422', '503', '504']],
    ['updateProduct', ['200', '400', '404', '409', '412', '413', '415', '422', '503', '504']],
    ['createReport', ['202', '400', '408', '409', '413', '415', '422', '503', '504', '507']],
    ['retryJob', ['202', '404', '409', '422', '503', '504']],
    ['isLive', ['200']],
  ])('says which statuses %s has', (name, statuses) => {
    expect(Object.keys(find(name).responses).filter((status) => status !== 'default')).toEqual(
      statuses,
    )
  })
})

describe('answers fit the document', () => {
  test('of every operation on products', async () => {
    const created = await send('createProduct', {
      body: { name: 'Documented lamp', price: '1.5', stock: 1 },
    })
    const { id } = JSON.parse(created.text ?? '')
    const etag = String(created.headers['etag'])
    const answers = [
      created,
      await send('createProduct', { body: { name: 'Documented lamp', price: '1.5', stock: 1 } }),
      await send('createProduct', { body: '{' }),
      await send('createProduct', { body: { name: '' } }),
      await send('createProduct', { body: {}, headers: { 'content-type': 'text/plain' } }),
      await send('listProducts', { query: 'limit=1' }),
      await send('readProduct', { id }),
      await send('readProduct', { id, headers: { 'if-none-match': etag } }),
      await send('readProduct', { id: '4294967295' }),
      await send('updateProduct', { id, body: { stock: 2 } }),
      await send('updateProduct', { id, body: { stock: 3 }, headers: { 'if-match': etag } }),
      await send('deleteProduct', { id }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([
      201, 409, 400, 422, 415, 200, 200, 304, 404, 200, 412, 204,
    ])
  })

  test('of every operation on reports and jobs, from queued to succeeded', async () => {
    const csv = { 'content-type': 'text/csv' }
    const created = await send('createReport', {
      body: 'a,b\n1,x\n2,y\n',
      query: 'groupBy=b&value=a',
      headers: csv,
    })
    const { id } = JSON.parse(created.text ?? '')
    await until(
      async () => (await send('readReport', { id })).text?.includes('"succeeded"'),
      'it has succeeded',
    )
    const answers = [
      created,
      await send('readReport', { id: String(id).toUpperCase() }),
      await send('readReport', { id, query: 'format=csv' }),
      await send('followReport', { id }),
      await send('listReports'),
      await send('cancelReport', { id }),
      await send('readJob', { id: String(id).toUpperCase() }),
      await send('listJobs', { query: 'state=succeeded' }),
      await send('cancelJob', { id }),
      await send('retryJob', { id }),
      await send('readJob', { id: crypto.randomUUID() }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([
      202, 200, 200, 200, 200, 202, 200, 200, 409, 409, 404,
    ])
  })

  test('of the others', async () => {
    const answers = [
      await send('countPrimes', { query: 'to=100' }),
      await send('countPrimes', { query: 'to=100&mode=inline' }),
      await send('drawMandelbrot', { query: 'width=16&height=16' }),
      await send('isLive'),
      await send('isReady'),
    ]
    await until(async () => (await send('readOps')).text?.includes('"loop"'), 'there is a sample')
    expect(answers.map(({ status }) => status)).toEqual([200, 403, 200, 200, 200])
  })
})

const find = (name: string) =>
  api.operations.find(({ operationId }) => operationId === name) as Operation

interface Request {
  id?: string
  query?: string
  body?: unknown
  headers?: Record<string, string>
}

/** Sends it, and expects the answer to fit. */
async function send(
  name: string,
  { id = '', query = '', body, headers = {} }: Request = {},
): Promise<Answer> {
  const operation = find(name)
  const response = await fetch(`${service.url}${operation.path.replace('{id}', id)}?${query}`, {
    method: operation.method.toUpperCase(),
    headers: { 'content-type': 'application/json', ...headers },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const answer = {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    text: await response.text(),
  }
  expect([name, api.misfits(operation, answer)]).toEqual([name, []])
  return answer
}
