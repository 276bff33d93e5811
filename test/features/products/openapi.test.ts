import { expect, test } from 'vitest'
import { serveApi } from '../../support/api.ts'

const { send, statusesOf, defaultsOf } = serveApi()

test('the OpenAPI document has the defaults and statuses of products', () => {
  expect(defaultsOf('listProducts')).toEqual({ limit: 20 })
  expect(statusesOf('listProducts')).toEqual(['200', '304', '401', '422', '429', '503', '504'])
  expect(statusesOf('createProduct')).toEqual([
    '201',
    '400',
    '401',
    '403',
    '409',
    '413',
    '415',
    '422',
    '429',
    '503',
    '504',
  ])
  expect(statusesOf('updateProduct')).toEqual([
    '200',
    '400',
    '401',
    '403',
    '404',
    '409',
    '412',
    '413',
    '415',
    '422',
    '429',
    '503',
    '504',
  ])
})

test('answers of every operation on products fit the document', async () => {
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
