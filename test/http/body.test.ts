import { once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { receiveUpload } from '../../src/http/body.ts'
import { getContext, requestContext } from '../../src/http/context.ts'
import { errorHandler } from '../../src/http/errors.ts'
import { createRouter } from '../../src/http/router.ts'
import { HttpServer } from '../../src/http/server.ts'
import { openLog } from '../../src/log.ts'
import { connectTo, sendRaw } from '../support/raw-http.ts'
import { until } from '../support/until.ts'

const MAX_BYTES = 100_000
const DEADLINE_MS = 100

/** A route that takes uploads, and says how many bytes came and what the last of them threw. */
async function serve(progressMs?: number) {
  const heard: { bytes: number; error: unknown; aborted: boolean; timeLeftMs: number }[] = []
  const app = createRouter()
  app.onError(errorHandler(openLog({ level: 'silent', format: 'json' })))
  app.use(requestContext(DEADLINE_MS, () => {}))
  app.post('/', async (c) => {
    const upload = { bytes: 0, error: undefined as unknown, aborted: false, timeLeftMs: 0 }
    heard.push(upload)
    try {
      for await (const chunk of receiveUpload(c, MAX_BYTES, progressMs))
        upload.bytes += chunk.byteLength
    } catch (error) {
      upload.error = error
      throw error
    } finally {
      upload.aborted = getContext(c).signal.aborted
      upload.timeLeftMs = getContext(c).timeLeftMs
    }
    return c.text(String(upload.bytes))
  })
  const server = new HttpServer({ leaving: new AbortController().signal })
  const url = await server.listen(app, '127.0.0.1', 0)
  onTestFinished(() => server[Symbol.asyncDispose]())
  return { url, heard }
}

const head = (field: string) =>
  `POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${field}\r\n\r\n`

test('an upload may take longer than the deadline, which restarts at its end', async () => {
  const { url, heard } = await serve()
  const socket = await connectTo(url)
  socket.write(head('Content-Length: 10'))
  socket.write('12345')
  await until(() => heard[0]?.bytes === 5, 'it begins to arrive')
  const started = performance.now()
  await until(() => performance.now() - started > 2 * DEADLINE_MS, 'the deadline is over')
  socket.write('67890')
  let answer = ''
  for await (const chunk of socket) answer += chunk
  expect(answer).toMatch(/^HTTP\/1.1 200 .*\r\n\r\n10$/s)
  expect(heard[0]?.aborted).toBe(false)
})

test('one that is declared too large is 413 before it arrives', async () => {
  const { url, heard } = await serve()
  expect((await sendRaw(url, head(`Content-Length: ${MAX_BYTES + 1}`))).status).toBe(413)
  expect(heard[0]?.bytes).toBe(0)
})

test('one that turns out too large is 413 while it arrives', async () => {
  const { url, heard } = await serve()
  const chunk = `${(40_000).toString(16)}\r\n${'x'.repeat(40_000)}\r\n`
  // It never ends.
  const { status, body } = await sendRaw(url, head('Transfer-Encoding: chunked') + chunk.repeat(3))
  expect([status, JSON.parse(body).code]).toEqual([413, 'too_large'])
  expect(heard[0]?.bytes).toBeLessThanOrEqual(MAX_BYTES)
  // Its deadline runs again for the rest of the request.
  expect(heard[0]?.timeLeftMs).toBeLessThanOrEqual(DEADLINE_MS)
})

test('one that stops is 408, and one that dribbles too', async () => {
  const { url } = await serve(300)
  expect((await sendRaw(url, head('Content-Length: 10'))).status).toBe(408)

  const socket = await connectTo(url)
  socket.on('error', () => {})
  socket.write(head('Content-Length: 90000'))
  const dribble = setInterval(() => socket.write('x'), 20)
  onTestFinished(() => clearInterval(dribble))
  const [answer] = await once(socket, 'data')
  expect(String(answer)).toMatch(/^HTTP\/1.1 408 /)
})

test('one whose client leaves ends at once', async () => {
  const { url, heard } = await serve()
  const socket = await connectTo(url)
  socket.write(`${head('Content-Length: 10')}12345`)
  await until(() => heard[0]?.bytes === 5, 'it begins to arrive')
  socket.destroy()
  await until(() => heard[0]?.error, 'the route hears of it')
  expect(heard[0]?.error).toMatchObject({ code: 'cancelled' })
})

test('a client that sends Expect: 100-continue is asked for the body when it is read, and not if it is rejected', async () => {
  const { url } = await serve()
  const refused = await sendRaw(
    url,
    head(`Expect: 100-continue\r\nContent-Length: ${MAX_BYTES + 1}`),
  )
  expect(refused.text).toMatch(/^HTTP\/1.1 413 /)
  expect(refused.head.toLowerCase()).toContain('connection: close')

  const socket = await connectTo(url)
  socket.write(head('Expect: 100-continue\r\nContent-Length: 10'))
  const [asked] = await once(socket, 'data')
  expect(String(asked)).toBe('HTTP/1.1 100 Continue\r\n\r\n')
  socket.write('1234567890')
  let answer = ''
  for await (const chunk of socket) answer += chunk
  expect(answer).toMatch(/^HTTP\/1.1 200 .*\r\n\r\n10$/s)
})

test('trailers after a body are read and left alone', async () => {
  const { url } = await serve()
  const { status, body } = await sendRaw(
    url,
    `${head('Transfer-Encoding: chunked')}5\r\n12345\r\n0\r\nX-Checksum: 1\r\n\r\n`,
  )
  expect([status, body]).toEqual([200, '5'])
})
