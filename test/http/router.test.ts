import { createRoute, z } from '@hono/zod-openapi'
import { describe, expect, test } from 'vitest'
import { answerTagged, notModified } from '../../src/http/etag.ts'
import { createRouter, json } from '../../src/http/router.ts'

describe('a route that declares what the router ignores is rejected', () => {
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

test('a response that its route does not declare is a type error', () => {
  const Thing = z.strictObject({ id: z.int() })
  const responses = { 200: json(Thing, 'A thing'), ...notModified }
  const route = createRoute({ method: 'get', path: '/', responses })
  const router = createRouter()
  router.openapi(route, (c) => c.json({ id: 1 }, 200))
  router.openapi(route, (c) => answerTagged(c, { id: 1 }))
  router.openapi(route, (c) => c.body(null, 304))
  // @ts-expect-error: the body is another one.
  router.openapi(route, (c) => c.json({ id: 'one' }, 200))
  // @ts-expect-error: the body with a tag is another one.
  router.openapi(route, (c) => answerTagged(c, { id: 'one' }))
  // @ts-expect-error: the status is not declared.
  router.openapi(route, (c) => c.json({ id: 1 }, 201))
  // @ts-expect-error: nothing is known of the body.
  router.openapi(route, () => new Response('{"id":1}'))
})
