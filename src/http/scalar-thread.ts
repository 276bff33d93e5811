import { parentPort } from 'node:worker_threads'
import apiReference from '@scalar/fastify-api-reference'

/*
 * Posts the API reference's script, which takes 100 ms to load. Of Scalar's packages, only the
 * Fastify plugin is small and contains it, hence the stand-in for Fastify.
 */

interface Route {
  url: string
  handler(request: unknown, reply: Reply): string
}

interface Reply {
  header(name: string, value: string): Reply
  send(body: string): string
}

const routes: Route[] = []
const fastify = {
  route: (route: Route) => routes.push(route),
  initialConfig: {},
  hasPlugin: () => false,
}
const reply: Reply = { header: () => reply, send: (body) => body }

apiReference(fastify as never, { configuration: { url: '/openapi.json' } }, () => {})
const script = routes.find(({ url }) => url.endsWith('.js'))?.handler(undefined, reply)
parentPort?.postMessage(script)
