import { randomUUID } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import { AppError } from '../errors.ts'
import type { AppContext, Env } from './env.ts'
import type { AppResponse } from './response.ts'

/** What the log says of a client that went away: there is no such status in HTTP, the number is nginx's. */
const CLIENT_GONE = 499

/** What is known of a request once its answer is out. */
export interface RequestRecord {
  method: string
  /** The pattern that matched, `/v1/products/:id`: few in number, unlike paths. */
  route: string
  /** 499 where the client went away before the answer's last byte. */
  status: number
  ms: number
  requestId: string
}

/** One request and its answer: the id they go by, the time they may take, the signal that ends them. */
export class Exchange {
  readonly requestId: string
  readonly startedAt = performance.now()
  readonly #timeoutMs: number
  readonly #outgoing: AppResponse | undefined
  #signal: AbortSignal | undefined

  /** @param outgoing Node's response; absent where a test calls `app.request()` without a socket. */
  constructor(timeoutMs: number, outgoing: AppResponse | undefined) {
    this.requestId = outgoing?.requestId ?? randomUUID()
    this.#timeoutMs = timeoutMs
    this.#outgoing = outgoing
  }

  get timeLeftMs() {
    return Math.max(0, Math.ceil(this.startedAt + this.#timeoutMs - performance.now()))
  }

  /** Made when it is first asked for, because a timer and two listeners are much for a request that awaits nothing. */
  get signal() {
    this.#signal ??= this.#createSignal()
    return this.#signal
  }

  #createSignal(): AbortSignal {
    const controller = new AbortController()
    const onTimeout = () => controller.abort(new AppError('deadline_exceeded', `No answer within ${this.#timeoutMs} ms`))
    const timer = setTimeout(onTimeout, this.timeLeftMs).unref()
    const outgoing = this.#outgoing
    const onClose = () => {
      clearTimeout(timer)
      if (!outgoing?.writableFinished) controller.abort(new AppError('cancelled', 'The client closed the connection'))
    }
    if (outgoing?.closed) onClose()
    else outgoing?.on('close', onClose)
    return controller.signal
  }
}

export const requestIdOf = (c: AppContext) => c.get('exchange').requestId

/** Aborts when the client goes away or the request's time is up; give it to everything that is awaited. */
export const signalOf = (c: AppContext) => c.get('exchange').signal

/** The milliseconds that the request may still take. */
export const timeLeftMs = (c: AppContext) => c.get('exchange').timeLeftMs

/** Gives each request its exchange, before all other middleware, and tells `onEnd` when the last byte of its answer is out. */
export const beginExchange =
  (timeoutMs: number, onEnd: (record: RequestRecord) => void): MiddlewareHandler<Env> =>
  (c, next) => {
    const outgoing = c.env?.outgoing
    const exchange = new Exchange(timeoutMs, outgoing)
    c.set('exchange', exchange)
    outgoing?.on('close', () => onEnd(recordOf(c, exchange, outgoing)))
    return next()
  }

function recordOf(c: AppContext, { startedAt, requestId }: Exchange, outgoing: AppResponse): RequestRecord {
  return {
    method: c.req.method,
    route: routePath(c, -1),
    status: outgoing.writableFinished ? outgoing.statusCode : CLIENT_GONE,
    ms: Math.round((performance.now() - startedAt) * 1_000) / 1_000,
    requestId,
  }
}
