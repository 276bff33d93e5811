import { createRoute, z } from '@hono/zod-openapi'
import { describe, expect, test } from 'vitest'
import { createRouter } from '../../src/http/router.ts'

describe('a route that declares what would go unheeded is refused', () => {
  const schema = z.object({ name: z.string() })

  test.each([
    ['cookies', { request: { cookies: schema } }],
    [
      'multipart/form-data',
      { request: { body: { content: { 'multipart/form-data': { schema } } } } },
    ],
    [
      'application/merge-patch+json',
      { request: { body: { content: { 'application/merge-patch+json': { schema } } } } },
    ],
    ['middleware', { middleware: [] }],
    ['hidden', { hide: true }],
  ])('%s', (named, declared) => {
    const route = createRoute({
      method: 'post',
      path: '/',
      responses: { 204: { description: 'Done' } },
      ...declared,
    })
    expect(() => createRouter().openapi(route, (c) => c.body(null, 204))).toThrow(named)
  })
})
