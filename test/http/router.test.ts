import { type RouteConfig, z } from '@hono/zod-openapi'
import { describe, expect, test } from 'vitest'
import { answerTagged, notModified } from '../../src/http/etag.ts'
import { createRouter, json } from '../../src/http/router.ts'

describe('a route that declares what the router ignores is rejected', () => {
  const schema = z.object({ name: z.string() })

  test.each<[string, Partial<RouteConfig>]>([
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
    const declare = () =>
      createRouter().openapi({
        method: 'post',
        path: '/',
        access: 'public',
        responses: { 204: { description: 'Done' } },
        handler: (c) => c.body(null, 204),
        ...declared,
      })
    expect(declare).toThrow(named)
  })
})

test('a response that its route does not declare is a type error', () => {
  const Thing = z.strictObject({ id: z.int() })
  const responses = { 200: json(Thing, 'A thing'), ...notModified }
  const route = { method: 'get', path: '/', access: 'public', responses } as const
  const router = createRouter()
  router.openapi({ ...route, handler: (c) => c.json({ id: 1 }, 200) })
  router.openapi({ ...route, handler: (c) => answerTagged(c, { id: 1 }) })
  router.openapi({ ...route, handler: (c) => c.body(null, 304) })
  // @ts-expect-error: the body is another one.
  router.openapi({ ...route, handler: (c) => c.json({ id: 'one' }, 200) })
  // @ts-expect-error: the body with a tag is another one.
  router.openapi({ ...route, handler: (c) => answerTagged(c, { id: 'one' }) })
  // @ts-expect-error: the status is not declared.
  router.openapi({ ...route, handler: (c) => c.json({ id: 1 }, 201) })
  // @ts-expect-error: nothing is known of the body.
  router.openapi({ ...route, handler: () => new Response('{"id":1}') })
})
