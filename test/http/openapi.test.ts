import { describe, expect, test } from 'vitest'
import { features } from '../../src/features/index.ts'
import { type Operation, serveApi } from '../support/api.ts'
import { openAllAndFixture } from '../support/fixture/features.ts'
import { until } from '../support/until.ts'

const { document, operations, send, statusesOf, defaultsOf } = serveApi(openAllAndFixture)

describe('the OpenAPI document', () => {
  test('names every operation, each by a name of its own', () => {
    const names = operations().map(({ operationId }) => operationId)
    expect(names).toEqual(names.filter(Boolean))
    expect(new Set(names).size).toBe(names.length)
  })

  test('declares for each operation the errors that its parts can cause', () => {
    const missing = operations().flatMap((operation) =>
      causedBy(operation)
        .filter((status) => !(status in operation.responses))
        .map((status) => `${operation.operationId}: ${status}`),
    )
    expect(missing).toEqual([])
  })

  test('declares no error that cannot occur, nor one for all', () => {
    const paths = features.map(({ path }) => path)
    const unfounded = operations()
      .filter(({ path }) => !paths.some((start) => path.startsWith(start)))
      .flatMap((operation) => {
        const { operationId, responses } = operation
        const known = [...causedBy(operation), ...(OWN_ERRORS[operationId] ?? [])]
        return Object.keys(responses)
          .filter((status) => !/^[23]/.test(status) && !known.includes(status))
          .map((status) => `${operationId}: ${status}`)
      })
    expect(unfounded).toEqual([])
  })

  test('has no allOf of strict schemas, which nothing could satisfy', () => {
    expect(JSON.stringify(document().components.schemas)).not.toContain('"allOf"')
  })

  test('has the defaults of parameters', () => {
    expect(defaultsOf('listItems')).toEqual({ limit: 20 })
    expect(defaultsOf('doWork')).toEqual({ ms: 1 })
  })

  test.each([
    ['listItems', ['200', '304', '401', '422', '429', '503', '504']],
    ['createItem', ['201', '400', '401', '403', '409', '413', '415', '422', '429', '503', '504']],
    [
      'updateItem',
      ['200', '400', '401', '403', '404', '409', '412', '413', '415', '422', '429', '503', '504'],
    ],
  ])('says which statuses %s has', (name, statuses) => {
    expect(statusesOf(name)).toEqual(statuses)
  })
})

/** What handlers themselves throw. */
const OWN_ERRORS: Record<string, string[]> = {
  signUp: ['409'],
  readAccount: ['404'],
  changePassword: ['404'],
  createKey: ['404'],
  createItem: ['409'],
  updateItem: ['409'],
  recordProfile: ['409'],
  endProfile: ['404'],
  takeHeapSnapshot: ['404', '409'],
}

/** Everybody may send an unknown key, use up a limit, and meet an overload. */
function causedBy({ method, path, parameters, body, security }: Operation): string[] {
  const names = parameters.map(({ name }) => name)
  return [
    ...['401', '429', '500', '503', '504'],
    ...(security.length > 0 || method !== 'get' ? ['403'] : []),
    ...(body ? ['400', '413', '415'] : []),
    ...(body || names.length > 0 ? ['422'] : []),
    ...(path.includes('{id}') ? ['404'] : []),
    ...(names.includes('if-match') ? ['412'] : []),
  ]
}

describe('answers fit the document', () => {
  test('of every operation on items', async () => {
    const created = await send('createItem', {
      body: { name: 'Documented lamp', price: '1.50', stock: 1 },
    })
    const { id } = JSON.parse(created.text ?? '')
    const etag = String(created.headers['etag'])
    const answers = [
      created,
      await send('createItem', { body: { name: 'Documented lamp', price: '1.50', stock: 1 } }),
      await send('createItem', { body: '{' }),
      await send('createItem', { body: { name: '' } }),
      await send('createItem', { body: {}, headers: { 'content-type': 'text/plain' } }),
      await send('listItems', { query: 'limit=1' }),
      await send('readItem', { id }),
      await send('readItem', { id, headers: { 'if-none-match': etag } }),
      await send('readItem', { id: '4294967295' }),
      await send('updateItem', { id, body: { stock: 2 } }),
      await send('updateItem', { id, body: { stock: 3 }, headers: { 'if-match': etag } }),
      await send('deleteItem', { id }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([
      201, 409, 400, 422, 415, 200, 200, 304, 404, 200, 412, 204,
    ])
  })

  test('of the others', async () => {
    const answers = [await send('doWork', { query: 'ms=1' }), await send('doWork', {})]
    await until(async () => (await send('readOps')).text?.includes('"loop"'), 'there is a sample')
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
  })
})
