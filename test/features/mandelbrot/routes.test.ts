import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PALETTE } from '../../../src/features/mandelbrot/picture.ts'
import { decodePng } from '../../support/png.ts'
import {
  metric,
  request,
  startRequest,
  startService,
  untilRunning,
  untilThreadsFree,
  useService,
} from '../../support/service.ts'

/** Minutes of work: none of these points ever escapes. */
const ENDLESS = 'width=2048&height=2048&iterations=5000&x=-0.2&scale=0.1&kernel=typescript'
const THREADS = 2

let service: Awaited<ReturnType<typeof startService>>
let mandelbrot: string

beforeAll(async () => {
  service = await startService({ COMPUTE_THREADS: `${THREADS}`, REQUEST_TIMEOUT_MS: '60000' })
  mandelbrot = `${service.url}/v1/mandelbrot.png`
})
afterAll(() => service.close())

async function draw(query: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${mandelbrot}?${query}`, { headers })
  return {
    status: response.status,
    headers: response.headers,
    png: Buffer.from(await response.arrayBuffer()),
  }
}

describe('drawing', () => {
  test('gives the whole set unless told otherwise', async () => {
    const { status, headers, png } = await draw('')
    expect([status, headers.get('content-type')]).toEqual([200, 'image/png'])
    const { width, height, palette, pixels } = decodePng(png)
    expect([width, height]).toEqual([960, 640])
    expect(palette).toEqual(Buffer.from(PALETTE))
    const ofTheSet = pixels.filter((index) => index === 0).length
    // The set covers 1.5066 of the 3.6 × 2.4 that are shown.
    expect(ofTheSet / pixels.length).toBeCloseTo(1.5066 / (3.6 * 2.4), 2)
  })

  test.each([
    ['width=1&height=1', 1, 1],
    ['width=7&height=301&iterations=50', 7, 301],
    ['width=301&height=7&x=-0.75&y=1E-1&scale=1e-3', 301, 7],
    ['width=2048&height=2048&iterations=20', 2_048, 2_048],
  ])('?%s: %d × %d pixels', async (query, width, height) => {
    const { status, png } = await draw(query)
    expect(status).toBe(200)
    expect(decodePng(png)).toMatchObject({ width, height })
  })

  test('gives the same bytes with both kernels, and so the same tag', async () => {
    const view = 'width=333&height=222&x=-0.7436&y=0.1319&scale=0.01&iterations=1000'
    const [wasm, typescript] = [
      await draw(`${view}&kernel=wasm`),
      await draw(`${view}&kernel=typescript`),
    ]
    expect(new Set(decodePng(wasm.png).pixels).size).toBeGreaterThan(100)
    expect(typescript.png).toEqual(wasm.png)
    expect(typescript.headers.get('etag')).toBe(wasm.headers.get('etag'))
  })

  test('leaves nothing of one picture in another, though they share memory', async () => {
    const small = 'width=60&height=40'
    const alone = await draw(small)
    for (const between of ['width=300&height=200&x=3', 'width=40&height=60&iterations=1'])
      await draw(between)
    const among = await Promise.all(
      [small, `${small}&x=0.3`, small, `${small}&y=1`, small].map((query) => draw(query)),
    )
    for (const index of [0, 2, 4]) expect(among[index]?.png).toEqual(alone.png)
    expect(among[1]?.png).not.toEqual(among[3]?.png)
  })
})

describe('what does not fit is 422 and named', () => {
  test.each([
    ['width=0', 'query.width'],
    ['width=2049', 'query.width'],
    ['width=-1', 'query.width'],
    ['width=1.5', 'query.width'],
    ['width=wide', 'query.width'],
    ['width=', 'query.width'],
    ['height=0', 'query.height'],
    ['height=2049', 'query.height'],
    ['iterations=0', 'query.iterations'],
    ['iterations=5001', 'query.iterations'],
    ['iterations=1e3', 'query.iterations'],
    ['x=4.01', 'query.x'],
    ['x=-4.01', 'query.x'],
    ['x=NaN', 'query.x'],
    ['x=Infinity', 'query.x'],
    ['x=1e999', 'query.x'],
    ['x=0x1', 'query.x'],
    ['x=', 'query.x'],
    ['x=1&x=2', 'query.x'],
    ['x=1,5', 'query.x'],
    ['y=5', 'query.y'],
    ['y=-', 'query.y'],
    ['scale=0', 'query.scale'],
    ['scale=-1', 'query.scale'],
    ['scale=1e-13', 'query.scale'],
    ['scale=8.1', 'query.scale'],
    ['kernel=cuda', 'query.kernel'],
    ['zoom=2', 'query.zoom'],
  ])('?%s: %s', async (query, path) => {
    const { status, body } = await request(`${mandelbrot}?${query}`)
    expect([status, body.code]).toEqual([422, 'invalid'])
    expect(body.errors.map((issue: { path: string }) => issue.path)).toEqual([path])
  })
})

describe('caching', () => {
  test('a picture may be kept by everyone, and has a strong tag', async () => {
    const { headers } = await draw('width=10&height=10')
    expect(headers.get('cache-control')).toBe('public, max-age=86400')
    expect(headers.get('etag')).toMatch(/^"[\w-]+"$/)
  })

  test('a client that has it gets 304, and nothing is drawn', async () => {
    const any = await draw(ENDLESS, { 'if-none-match': '*' })
    const tag = any.headers.get('etag') ?? ''
    const { status, headers, png } = await draw(ENDLESS, { 'if-none-match': `"another", ${tag}` })
    expect([any.status, status, png.length]).toEqual([304, 304, 0])
    expect([headers.get('etag'), headers.get('cache-control')]).toEqual([
      tag,
      'public, max-age=86400',
    ])
    expect(await metric(service.opsUrl, 'compute_threads_busy')).toBe(0)
  })

  test('every view has a tag of its own, however it is written', async () => {
    const tagOf = async (query: string) =>
      (await draw(query, { 'if-none-match': '*' })).headers.get('etag')
    const views = [
      '',
      'width=961',
      'height=641',
      'iterations=501',
      'x=-0.66',
      'y=0.01',
      'scale=3.61',
    ]
    expect(new Set(await Promise.all(views.map(tagOf))).size).toBe(views.length)
    expect(await tagOf('x=-0.650&scale=36e-1&width=0960')).toBe(await tagOf(''))
  })

  test('a client that has another picture gets this one', async () => {
    expect((await draw('width=10&height=10', { 'if-none-match': '"another"' })).status).toBe(200)
  })
})

test('light requests are answered while every thread draws', async () => {
  const client = startRequest(`${mandelbrot}?${ENDLESS}`)
  await untilRunning(service.opsUrl, THREADS)
  for (let index = 0; index < 20; index++)
    expect((await request(service.url, 'HEAD')).status).toBe(200)
  expect(await metric(service.opsUrl, 'compute_threads_busy')).toBe(THREADS)
  client.abort()
  await untilThreadsFree(service.opsUrl)
})

test('a client that goes away frees all threads for the next', async () => {
  const before = await draw('width=200&height=200')
  const client = startRequest(`${mandelbrot}?${ENDLESS}`)
  await untilRunning(service.opsUrl, THREADS)
  client.abort()
  expect((await draw('width=200&height=200')).png).toEqual(before.png)
  await untilThreadsFree(service.opsUrl)
})

test('a picture that takes too long is given up, and frees its threads', async () => {
  const { url, opsUrl } = await useService({ REQUEST_TIMEOUT_MS: '300', COMPUTE_THREADS: '1' })
  const { status, body } = await request(`${url}/v1/mandelbrot.png?${ENDLESS}`)
  expect([status, body.code]).toEqual([504, 'deadline_exceeded'])
  await untilThreadsFree(opsUrl)
})

test('a picture that is being drawn when the service stops is finished', async () => {
  const { url, opsUrl, stop } = await useService({
    COMPUTE_THREADS: '2',
    REQUEST_TIMEOUT_MS: '60000',
    DRAIN_TIMEOUT_MS: '60000',
  })
  const drawn = fetch(
    `${url}/v1/mandelbrot.png?width=1000&height=1000&iterations=2000&x=-0.2&scale=0.1`,
  )
  await untilRunning(opsUrl, 2)
  await stop()
  const response = await drawn
  expect(response.status).toBe(200)
  expect(decodePng(Buffer.from(await response.arrayBuffer()))).toMatchObject({
    width: 1_000,
    height: 1_000,
  })
})

test('the API document has it as a picture', async () => {
  const { body } = await request(`${service.url}/openapi.json`)
  const { parameters, responses } = body.paths['/v1/mandelbrot.png'].get
  expect(Object.keys(responses['200'].content)).toEqual(['image/png'])
  expect(parameters.find(({ name }: { name: string }) => name === 'scale').schema).toMatchObject({
    type: 'number',
    minimum: 1e-12,
    maximum: 8,
    default: 3.6,
  })
})
