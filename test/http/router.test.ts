import { type RouteConfig, z } from '@hono/zod-openapi'
import { describe, expect, test } from 'vitest'
import type { AppError } from '../../src/errors.ts'
import { getContext, requestContext } from '../../src/http/context.ts'
import { answerTagged, notModified } from '../../src/http/etag.ts'
import { createRouter, json, listAccess, withAccess } from '../../src/http/router.ts'
import type { Subject } from '../../src/roles.ts'
import { OPERATOR } from '../support/operator.ts'

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

describe('a route', () => {
  test('that does not say who may call it keeps the app from starting', () => {
    const app = createRouter()
    app.get(
      '/open',
      withAccess('public', (c) => c.text('')),
    )
    app.use('/*', (_, next) => next())
    expect(listAccess(app)).toEqual([{ method: 'GET', path: '/open', access: 'public' }])
    app.get('/forgotten', (c) => c.text(''))
    expect(() => listAccess(app)).toThrow('GET /forgotten declares no access')
  })

  test.each<[number, string, Subject | undefined]>([
    [401, 'nobody', undefined],
    [403, 'one without its scope', { ...OPERATOR, scopes: new Set(['account']) }],
    [200, 'one with its scope', OPERATOR],
  ])('answers %i to %s', async (status, _, subject) => {
    const app = createRouter()
    app.onError((error, c) => c.body(null, (error as AppError).status as 401))
    app.use(requestContext(1_000, () => {}))
    app.use((c, next) => {
      getContext(c).subject = subject
      return next()
    })
    app.get(
      '/',
      withAccess('operate', (c) => c.text('')),
    )
    expect((await app.request('/')).status).toBe(status)
  })
})
