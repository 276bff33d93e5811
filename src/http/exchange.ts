import { AsyncLocalStorage } from 'node:async_hooks'
import { performance } from 'node:perf_hooks'
import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import { AppError, withoutStack } from '../errors.ts'
import type { AppContext, Env } from './env.ts'
import { type AppResponse, newRequestId } from './response.ts'

/**
 * What the log says of a client that went away: there is no such status in HTTP, the number is
 * nginx's.
 */
const CLIENT_GONE = 499

/**
 * The request that the running code works for, across everything that it awaits. Emptied at the
 * request's end: what was started meanwhile and lives longer, such as the timer of each idle
 * connection, keeps this object, and would keep all of the request's memory with it.
 */
const inProgress = new AsyncLocalStorage<InProgress>()

interface InProgress {
  context: AppContext | undefined
}

/** What is known of a request once its answer is out. */
export interface RequestRecord {
  method: string
  /** The pattern that matched, `/v1/products/:id`: few in number, unlike paths. */
  route: string
  /** 499 where the client went away before the answer's last byte. */
  status: number
  ms: number
  requestId: string
  /**
   * Whether the client says, by the header `X-Background: 1`, that no user asked for it, as the
   * live page's polling does.
   */
  background: boolean
}

/**
 * One request and its answer: the id they go by, the time they may take, the signal that ends them.
 */
export class Exchange {
  readonly requestId: string
  readonly startedAt: number
  readonly #timeoutMs: number
  readonly #outgoing: AppResponse | undefined
  #dueAt: number
  #timer: NodeJS.Timeout | undefined
  #controller: AbortController | undefined
  #isEnded = false

  /**
   * @param outgoing Node's response; absent where a test calls `app.request()` without a socket.
   */
  constructor(timeoutMs: number, outgoing: AppResponse | undefined) {
    this.requestId = outgoing?.requestId ?? newRequestId()
    this.startedAt = outgoing?.startedAt ?? performance.now()
    this.#timeoutMs = timeoutMs
    this.#dueAt = this.startedAt + timeoutMs
    this.#outgoing = outgoing
  }

  get timeLeftMs() {
    return Math.max(0, Math.ceil(this.#dueAt - performance.now()))
  }

  /**
   * Made when it is first asked for, because it and its timer are much for a request that awaits
   * nothing.
   */
  get signal() {
    this.#controller ??= this.#createController()
    return this.#controller.signal
  }

  /**
   * For what takes as long as it takes, an upload or a stream of events: now only the client's
   * leaving aborts the signal.
   */
  liftDeadline(): void {
    this.#setDeadline(Number.POSITIVE_INFINITY)
  }

  /** Begins the request's time anew, once what took long is over. */
  renewDeadline(): void {
    this.#setDeadline(performance.now() + this.#timeoutMs)
  }

  /** The answer's last byte is out, or its connection gone. */
  end(): void {
    this.#isEnded = true
    clearTimeout(this.#timer)
    if (!this.#isServed()) this.#controller?.abort(clientGone())
  }

  /**
   * Whether there is an answer and nothing left to do for it. That to HEAD has no body: what would
   * make one must end.
   */
  #isServed(): boolean | undefined {
    return this.#outgoing?.writableFinished && this.#outgoing.req.method !== 'HEAD'
  }

  #setDeadline(dueAt: number) {
    this.#dueAt = dueAt
    clearTimeout(this.#timer)
    if (this.#controller && !this.#isEnded) this.#startTimer(this.#controller)
  }

  #startTimer(controller: AbortController) {
    if (this.#dueAt === Number.POSITIVE_INFINITY) return
    const onTimeout = () => controller.abort(tooLate(this.#timeoutMs))
    this.#timer = setTimeout(onTimeout, this.timeLeftMs).unref()
  }

  #createController(): AbortController {
    const controller = new AbortController()
    if (!this.#isEnded) this.#startTimer(controller)
    else if (!this.#isServed()) controller.abort(clientGone())
    return controller
  }
}

// Both are frequent when the service is overloaded or lacks its database, and come from nowhere in
// particular.
const clientGone = () =>
  withoutStack(() => new AppError('cancelled', 'The client closed the connection'))
const tooLate = (ms: number) =>
  withoutStack(() => new AppError('deadline_exceeded', `No answer within ${ms} ms`))

export const requestIdOf = (c: AppContext) => c.get('exchange').requestId

/**
 * Aborts when the client goes away or the request's time is up; give it to everything that is
 * awaited.
 */
export const signalOf = (c: AppContext) => c.get('exchange').signal

/**
 * Ends the deadline of a request whose work takes as long as it takes; `renewDeadline` begins it
 * anew.
 */
export const liftDeadline = (c: AppContext) => c.get('exchange').liftDeadline()

export const renewDeadline = (c: AppContext) => c.get('exchange').renewDeadline()

/**
 * The client's address: as the `key` of its calls, so that no client takes the threads from others.
 * Unknown without a socket.
 */
export const clientOf = (c: AppContext): string | undefined => c.env?.incoming?.socket.remoteAddress

/** The request that the running code works for, if there is one that has no answer yet. */
export function requestInProgress(): Pick<RequestRecord, 'requestId' | 'route'> | undefined {
  const c = inProgress.getStore()?.context
  return c && { requestId: requestIdOf(c), route: routePath(c, -1) }
}

/** The milliseconds that the request may still take. */
export const timeLeftMs = (c: AppContext) => c.get('exchange').timeLeftMs

/**
 * Gives each request its exchange, before all other middleware.
 *
 * @param onEnd told of the requests whose answer's last byte is out; of all that there are in one
 * turn of the event loop together, because one after the other they are logged and counted for
 * less: the code for it stays in the core's caches.
 */
export function beginExchange(
  timeoutMs: number,
  onEnd: (records: readonly RequestRecord[]) => void,
): MiddlewareHandler<Env> {
  let ended: RequestRecord[] = []
  const tell = () => {
    const records = ended
    ended = []
    onEnd(records)
  }
  return (c, next) => {
    const outgoing = c.env?.outgoing
    const exchange = new Exchange(timeoutMs, outgoing)
    c.set('exchange', exchange)
    const current: InProgress = { context: c }
    // Not `run()`, which costs twice as much: what Node calls for the next request has a context of
    // its own.
    inProgress.enterWith(current)
    const end = (outgoing: AppResponse) => {
      exchange.end()
      current.context = undefined
      if (ended.push(recordOf(c, exchange, outgoing)) === 1) setImmediate(tell)
    }
    if (outgoing?.req.socket.destroyed) {
      // It left while its request waited to be begun.
      end(outgoing)
      throw clientGone()
    }
    outgoing?.on('close', () => end(outgoing))
    return next()
  }
}

/**
 * Answers a request that the server refused before the app got it. After CORS, so that pages
 * elsewhere can read the answer.
 */
export const refuseUnserved: MiddlewareHandler<Env> = (c, next) => {
  const refusal = c.env?.outgoing?.refusal
  if (refusal) throw refusal
  return next()
}

function recordOf(
  c: AppContext,
  { startedAt, requestId }: Exchange,
  outgoing: AppResponse,
): RequestRecord {
  return {
    method: c.req.method,
    route: routePath(c, -1),
    status: outgoing.writableFinished ? outgoing.statusCode : CLIENT_GONE,
    ms: Math.round((performance.now() - startedAt) * 1_000) / 1_000,
    requestId,
    background: outgoing.req.headers['x-background'] === '1',
  }
}
