import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { performance } from 'node:perf_hooks'
import { AppError } from '../../src/errors.ts'
import { urlOf } from '../../src/http/address.ts'
import { writeProblem } from '../../src/http/errors.ts'
import { placeOf } from './incident.ts'
import type { Inquiry } from './inquiry.ts'
import type { ServerOptions } from './protocol.ts'
import type { Held } from './watch.ts'

/** Prometheus's text format. */
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
/**
 * Readiness waits for an event loop that is busy, which is no reason to take its traffic away. One
 * that is held for longer is as ready as it was when somebody asked last, three periods of
 * Kubernetes' probes ago at most, until it counts as stuck.
 */
const READINESS = { patienceMs: 500, maxAgeMs: 30_000 }
const STUCK_MS = 5_000
/** A scrape gets the figures of the scrape before, with their age, rather than none. */
const METRICS = { patienceMs: 15, maxAgeMs: Number.POSITIVE_INFINITY }

interface Sources {
  inquiry: Inquiry
  held: () => Held
}

/**
 * `/health/live`, `/health/ready` and `/metrics` on a port and a thread of their own: whatever
 * holds the event loop, a probe gets its answer and a scrape its figures.
 */
export class OpsServer {
  readonly #server: Server
  readonly #options: ServerOptions
  readonly #sources: Sources

  /** Starts to listen, and gives the URL. @throws NodeJS.ErrnoException when it cannot. */
  static async listen(options: ServerOptions, sources: Sources): Promise<string> {
    const ops = new OpsServer(options, sources)
    ops.#server.listen(options.port, options.host)
    await once(ops.#server, 'listening')
    // A connection that the system cannot accept now is no reason to end.
    ops.#server.on('error', () => {})
    return urlOf(ops.#server.address() as AddressInfo)
  }

  private constructor(options: ServerOptions, sources: Sources) {
    this.#options = options
    this.#sources = sources
    this.#server = createServer(async ({ method = '', url = '' }, response) => {
      const [path = ''] = url.split('?')
      try {
        if (method !== 'GET' && method !== 'HEAD') throw methodNotAllowed(path, method)
        await this.#answer(path, response)
      } catch (error) {
        writeProblem(response, toAppError(error), path)
      }
    })
  }

  async #answer(path: string, response: ServerResponse): Promise<void> {
    if (path === '/health/live') return this.#live(response)
    if (path === '/health/ready') return this.#ready(response)
    if (path === '/metrics') return this.#metrics(response)
    throw new AppError('not_found', `There is nothing at ${path}`)
  }

  #live(response: ServerResponse) {
    const { heldMs, culprit } = this.#sources.held()
    const seconds = (heldMs / 1_000).toFixed(1)
    if (heldMs > this.#options.maxHeldMs)
      throw new AppError(
        'unavailable',
        `The event loop has been held for ${seconds} s${culprit ? ` by ${placeOf(culprit)}` : ''}`,
      )
    sendJson(response, { status: 'ok', heldMs: Math.round(heldMs), culprit })
  }

  async #ready(response: ServerResponse) {
    const known = await this.#sources.inquiry.ask('readiness', READINESS)
    const { heldMs } = this.#sources.held()
    if (!known || heldMs > STUCK_MS || performance.now() - known.at > READINESS.maxAgeMs)
      throw new AppError(
        'unavailable',
        `The event loop has not answered for a while; it is held for ${Math.round(heldMs)} ms`,
      )
    if (!known.answer.ready) throw new AppError('unavailable', known.answer.reason)
    sendJson(response, { status: 'ok' })
  }

  async #metrics(response: ServerResponse) {
    const known = await this.#sources.inquiry.ask('metrics', METRICS)
    const { heldMs } = this.#sources.held()
    const ageMs = known ? performance.now() - known.at : Number.NaN
    response.writeHead(200, { 'content-type': METRICS_TYPE })
    response.end(`${known?.answer ?? ''}${ownFigures(heldMs / 1_000, ageMs / 1_000)}`)
  }
}

/** What only this thread knows, in Prometheus's text format. */
const ownFigures = (heldSeconds: number, ageSeconds: number) => `
# HELP event_loop_held_seconds How long the event loop has been held by now, 0 while it turns
# TYPE event_loop_held_seconds gauge
event_loop_held_seconds ${heldSeconds.toFixed(3)}
# HELP ops_snapshot_age_seconds How old all other figures are: more than a moment while the event loop is held
# TYPE ops_snapshot_age_seconds gauge
ops_snapshot_age_seconds ${ageSeconds.toFixed(3)}
`

function sendJson(response: ServerResponse, body: object) {
  response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(JSON.stringify(body))
}

const methodNotAllowed = (path: string, method: string) =>
  new AppError('method_not_allowed', `${path} does not take ${method}`, {
    headers: { Allow: 'GET, HEAD' },
  })

const toAppError = (thrown: unknown) =>
  thrown instanceof AppError ? thrown : new AppError('internal', 'Something went wrong on our side')
