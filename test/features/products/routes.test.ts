import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { request, startService } from '../../support/service.ts'

let service: Awaited<ReturnType<typeof startService>>
let products: string
let names = 0

beforeAll(async () => {
  service = await startService()
  products = `${service.url}/v1/products`
})
afterAll(() => service.close())

const aProduct = (changes = {}) => ({
  name: `Teapot ${++names}`,
  price: '24.50',
  stock: 3,
  ...changes,
})
const create = async (changes = {}) => (await request(products, 'POST', aProduct(changes))).body

describe('creating', () => {
  test('answers 201 with the product, where it is and its version', async () => {
    const { status, headers, body } = await request(products, 'POST', aProduct({ name: 'Samovar' }))
    expect(status).toBe(201)
    expect(headers.get('location')).toBe(`/v1/products/${body.id}`)
    expect(headers.get('etag')).toBe('"1"')
    expect(body).toMatchObject({ name: 'Samovar', price: '24.50', stock: 3, version: 1 })
    expect(new Date(body.createdAt).getTime()).toBeCloseTo(Date.now(), -5)
  })

  test.each([
    ['price', '7', '7.00'],
    ['price', '7.5', '7.50'],
    ['price', '007.05', '7.05'],
    ['price', '0', '0.00'],
    ['price', '0000000000.00', '0.00'],
    ['price', '9999999999.99', '9999999999.99'],
    ['name', '  Copper pot ', 'Copper pot'],
    ['name', '\u0000\u202e🫖 é', '\u0000\u202e🫖 é'],
    ['stock', 4_294_967_295, 4_294_967_295],
  ])('answers with the %s %j as the database keeps it', async (field, given, kept) => {
    const { status, body } = await request(products, 'POST', aProduct({ [field]: given }))
    expect([status, body[field]]).toEqual([201, kept])
    expect((await request(`${products}/${body.id}`)).body).toEqual(body)
  })

  test('refuses a name that is taken, whatever its case', async () => {
    await create({ name: 'Kettle' })
    const { status, body } = await request(products, 'POST', aProduct({ name: 'KETTLE' }))
    expect(status).toBe(409)
    expect(body).toMatchObject({
      code: 'conflict',
      detail: 'There is a product named "KETTLE" already',
    })
  })

  test('names every path that does not fit, unknown keys too', async () => {
    const { status, body } = await request(products, 'POST', {
      name: ' ',
      price: 12.5,
      stock: -1,
      colour: 'red',
    })
    expect(status).toBe(422)
    expect(body.code).toBe('invalid')
    expect(body.errors.map(({ path }: { path: string }) => path).sort()).toEqual([
      'body.colour',
      'body.name',
      'body.price',
      'body.stock',
    ])
  })

  test.each(['12.345', '-1', '1e3', '12345678901', ''])('refuses the price %j', async (price) => {
    expect((await request(products, 'POST', aProduct({ price }))).status).toBe(422)
  })

  test.each(['\ud800', 'Half \udc00 a pair', '\ude00\ud83d'])(
    'refuses the name %j, which UTF-8 cannot hold',
    async (name) => {
      const id = (await create({ name: `Whole ${JSON.stringify(name)}` })).id
      for (const [url, method, body] of [
        [products, 'POST', aProduct({ name })],
        [`${products}/${id}`, 'PATCH', { name }],
      ] as const)
        expect(await request(url, method, body)).toMatchObject({
          status: 422,
          body: { errors: [{ path: 'body.name' }] },
        })
    },
  )

  test('keeps text that looks like SQL as text', async () => {
    const name = `Robert'); drop table product; -- \\ " 🫖`
    const { body } = await request(products, 'POST', aProduct({ name }))
    expect((await request(`${products}/${body.id}`)).body.name).toBe(name)
  })
})

describe('reading', () => {
  test('gives what was created', async () => {
    const created = await create()
    expect((await request(`${products}/${created.id}`)).body).toEqual(created)
  })

  test('answers 304 without a body to a client that has this version', async () => {
    const { id } = await create()
    const first = await request(`${products}/${id}`)
    const etag = first.headers.get('etag') ?? ''
    for (const known of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const again = await request(`${products}/${id}`, 'GET', undefined, { 'if-none-match': known })
      expect([known, again.status, again.body]).toEqual([known, 304, ''])
    }
    expect(
      (await request(`${products}/${id}`, 'GET', undefined, { 'if-none-match': '"99"' })).status,
    ).toBe(200)
  })

  test('answers 404 to an id that does not exist and 422 to one that cannot', async () => {
    expect((await request(`${products}/999999`)).body).toMatchObject({
      status: 404,
      code: 'not_found',
    })
    const { status, body } = await request(`${products}/seven`)
    expect([status, body.errors[0].path]).toEqual([422, 'path.id'])
  })
})

describe('listing', () => {
  test('pages through everything once, in order, by cursor', async () => {
    for (let index = 0; index < 5; index++) await create()
    const ids: number[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await request(`${products}?limit=2${cursor && `&cursor=${cursor}`}`)
      expect(body.items.length).toBeLessThanOrEqual(2)
      ids.push(...body.items.map(({ id }: { id: number }) => id))
      cursor = body.nextCursor
    }
    const [{ count }] = (await service.database
      .withSignal()
      .selectFrom('product')
      .select((eb) => [eb.fn.countAll<string>().as('count')])
      .execute()) as [{ count: string }]
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b))
    expect(ids.length).toBe(Number(count))
  })

  test('gives 20 unless told otherwise', async () => {
    for (let index = 0; index < 21; index++) await create()
    expect((await request(products)).body.items.length).toBe(20)
  })

  test('answers 304 until something on the page changes', async () => {
    const first = await request(`${products}?limit=1`)
    const headers = { 'if-none-match': first.headers.get('etag') ?? '' }
    expect((await request(`${products}?limit=1`, 'GET', undefined, headers)).status).toBe(304)
    await request(`${products}/${first.body.items[0].id}`, 'PATCH', { stock: 77 })
    expect((await request(`${products}?limit=1`, 'GET', undefined, headers)).status).toBe(200)
  })

  test.each([
    'limit=0',
    'limit=101',
    'limit=two',
    'limit=1&limit=2',
    'page=3',
    'cursor=nonsense',
    'cursor=',
  ])('refuses ?%s and names the parameter', async (query) => {
    const { status, body } = await request(`${products}?${query}`)
    expect([status, body.errors[0].path]).toEqual([422, `query.${query.split('=')[0]}`])
  })
})

describe('changing', () => {
  test('changes only what is given and counts the version up', async () => {
    const { id, name } = await create()
    const { status, headers, body } = await request(`${products}/${id}`, 'PATCH', { price: '1.00' })
    expect([status, headers.get('etag')]).toEqual([200, '"2"'])
    expect(body).toMatchObject({ id, name, price: '1.00', stock: 3, version: 2 })
  })

  test('refuses a change that builds on an old version', async () => {
    const { id } = await create()
    await request(`${products}/${id}`, 'PATCH', { stock: 4 })
    const { status, body } = await request(
      `${products}/${id}`,
      'PATCH',
      { stock: 5 },
      { 'if-match': '"1"' },
    )
    expect([status, body.code]).toEqual([412, 'precondition_failed'])
    expect(
      (await request(`${products}/${id}`, 'PATCH', { stock: 5 }, { 'if-match': '"2"' })).status,
    ).toBe(200)
    expect(
      (await request(`${products}/${id}`, 'PATCH', { stock: 6 }, { 'if-match': '*' })).status,
    ).toBe(200)
  })

  test('lets one of many win who all build on the same version', async () => {
    const { id } = await create()
    const patches = Array.from({ length: 8 }, (_, stock) =>
      request(`${products}/${id}`, 'PATCH', { stock }, { 'if-match': '"1"' }),
    )
    const statuses = (await Promise.all(patches)).map(({ status }) => status).sort()
    expect(statuses).toEqual([200, 412, 412, 412, 412, 412, 412, 412])
  })

  test('refuses an empty change, an unknown product and a name that is taken', async () => {
    const [{ name }, { id }] = [await create(), await create()]
    expect((await request(`${products}/${id}`, 'PATCH', {})).status).toBe(422)
    expect((await request(`${products}/999999`, 'PATCH', { stock: 1 })).status).toBe(404)
    expect((await request(`${products}/${id}`, 'PATCH', { name })).status).toBe(409)
  })
})

describe('deleting', () => {
  test('answers 204, and 404 from then on', async () => {
    const { id } = await create()
    expect((await request(`${products}/${id}`, 'DELETE')).status).toBe(204)
    expect((await request(`${products}/${id}`, 'DELETE')).status).toBe(404)
    expect((await request(`${products}/${id}`)).status).toBe(404)
  })

  test('refuses when it builds on an old version', async () => {
    const { id } = await create()
    await request(`${products}/${id}`, 'PATCH', { stock: 4 })
    expect(
      (await request(`${products}/${id}`, 'DELETE', undefined, { 'if-match': '"1"' })).status,
    ).toBe(412)
  })
})
