import { expect, test } from 'vitest'
import { serveApi } from '../../support/api.ts'

const { send, defaultsOf } = serveApi()

test('the OpenAPI document has the defaults of the picture, and answers fit it', async () => {
  expect(defaultsOf('drawMandelbrot')).toMatchObject({ width: 960 })
  expect((await send('drawMandelbrot', { query: 'width=16&height=16' })).status).toBe(200)
})
