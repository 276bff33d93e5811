import { parentPort } from 'node:worker_threads'
import apiReference from '@scalar/fastify-api-reference'

/*
 * Posts the API reference's script. It is in Scalar's plugin for Fastify (docs/decisions/004),
 * hence the stand-in for Fastify.
 */

interface Route {
  url: string
  handler(request: unknown, reply: object): string
}

let script: string | undefined
const reply = { header: () => reply as object, send: (body: string) => body }
const fastify = {
  initialConfig: {},
  hasPlugin: () => false,
  route({ url, handler }: Route) {
    if (url.endsWith('.js')) script = handler(undefined, reply)
  },
}
apiReference(fastify as never, { configuration: { url: '/openapi.json' } }, () => {})
// Without them, statuses are texts, not links to another site.
parentPort?.postMessage(script?.replaceAll(/https:\/\/developer\.mozilla\.org[^"'`]*/g, ''))
