import { AsyncLocalStorage } from 'node:async_hooks'
import type { IncomingMessage } from 'node:http'
import { performance } from 'node:perf_hooks'
import type { Context, MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import { AppError, withoutStack } from '../errors.ts'
import { type Log, Repeats } from '../log.ts'
import type { Subject } from '../roles.ts'
import { type AppResponse, newRequestId } from './headers.ts'

export interface Env {
  /** Absent in tests that call `app.request()`. */
  Bindings: { incoming?: IncomingMessage; outgoing?: AppResponse }
  Variables: { requestContext: RequestContext }
}

export type AppContext = Context<Env>

export interface RequestRecord {
  method: string
  /** A pattern, such as `/v1/orders/:id`. */
  route: string
  /** 499 if the client left early. */
  status: number
  ms: number
  requestId: string
  client: string | undefined
  subject: string | undefined
  /** The page's files, and `X-Background: 1`, which polling pages send. */
  background: boolean
  /** Valid or not. */
  hasCredentials: boolean
  /** In milliseconds since the epoch. */
  startedAt: number
  /** The first 20. */
  statements: readonly Statement[]
  statementCount: number
  trace: Trace | undefined
}

/** Of a request or job that is sampled. */
export interface Trace {
  readonly traceId: string
  /** By W3C Trace Context. */
  readonly traceparent: string
}

/** A request, or an attempt at a job. */
export interface Work {
  readonly requestId: string | undefined
  readonly trace: Trace | undefined
  describe(): Record<string, string | undefined>
  addStatement?(statement: Statement): void
}

/** SQL without values. */
export interface Statement {
  text: string
  /** Undefined while it runs. */
  ms: number | undefined
}

const CLIENT_CLOSED_REQUEST = 499
const MAX_STATEMENTS = 20
const TIME_ORIGIN = performance.timeOrigin

/** Which of a caller's limits a route counts against. */
export type Limit = 'read' | 'write' | 'heavy' | 'upload' | 'login'

export interface Limiter {
  /** Counts a request. @throws AppError `rate_limited`. */
  count(c: AppContext, limit: Limit): Promise<void> | undefined
  isUnlimited(client: string | undefined): boolean
}

export class RequestContext implements Work {
  readonly requestId: string
  readonly startedAt: number
  /** Undefined for an anonymous client. */
  subject: Subject | undefined
  /** Why the caller is unknown, which public routes ignore. */
  identityError: AppError | undefined
  limiter: Limiter | undefined
  isBackground = false
  trace: Trace | undefined
  readonly statements: Statement[] = []
  statementCount = 0
  readonly #timeoutMs: number
  readonly #outgoing: AppResponse | undefined
  readonly #c: AppContext | undefined
  #deadline: number
  #timer: NodeJS.Timeout | undefined
  #controller: AbortController | undefined
  #isEnded = false

  constructor(timeoutMs: number, outgoing: AppResponse | undefined, c?: AppContext) {
    this.requestId = outgoing?.requestId ?? newRequestId()
    this.startedAt = outgoing?.startedAt ?? performance.now()
    this.#timeoutMs = timeoutMs
    this.#deadline = this.startedAt + timeoutMs
    this.#outgoing = outgoing
    this.#c = c
  }

  get client(): string | undefined {
    return this.#outgoing?.client || undefined
  }

  get isLimited(): boolean {
    return this.limiter?.isUnlimited(this.client) === false
  }

  get timeLeftMs(): number {
    return Math.max(0, Math.ceil(this.#deadline - performance.now()))
  }

  /** Aborts when the client leaves or the deadline passes. */
  get signal(): AbortSignal {
    if (this.#controller) return this.#controller.signal
    this.#controller = new AbortController()
    if (this.#isEnded) this.#abortUnanswered()
    else this.#startTimer()
    return this.#controller.signal
  }

  describe() {
    return { requestId: this.requestId, route: this.#c ? routePath(this.#c, -1) : '' }
  }

  addStatement(statement: Statement): void {
    if (++this.statementCount <= MAX_STATEMENTS) this.statements.push(statement)
  }

  clearDeadline(): void {
    this.#setDeadline(Number.POSITIVE_INFINITY)
  }

  restartDeadline(): void {
    this.#setDeadline(performance.now() + this.#timeoutMs)
  }

  end(): void {
    this.#isEnded = true
    clearTimeout(this.#timer)
    this.#abortUnanswered()
  }

  /** HEAD gets no body: its producer must stop. */
  #abortUnanswered() {
    if (!this.#outgoing?.writableFinished || this.#outgoing.req.method === 'HEAD')
      this.#controller?.abort(clientClosedRequest())
  }

  #setDeadline(deadline: number) {
    this.#deadline = deadline
    clearTimeout(this.#timer)
    if (!this.#isEnded) this.#startTimer()
  }

  #startTimer() {
    if (!this.#controller || this.#deadline === Number.POSITIVE_INFINITY) return
    const onTimeout = () => this.#controller?.abort(deadlineExceeded(this.#timeoutMs))
    this.#timer = setTimeout(onTimeout, this.timeLeftMs).unref()
  }
}

const clientClosedRequest = () =>
  withoutStack(() => new AppError('cancelled', 'The client closed the connection'))
const deadlineExceeded = (ms: number) =>
  withoutStack(() => new AppError('deadline_exceeded', `No answer within ${ms} ms`))

export const getContext = (c: AppContext): RequestContext => c.get('requestContext')

/** Of a route that is not public. */
export const expectSubject = (c: AppContext) => getContext(c).subject as Subject

export function taskOptions(c: AppContext) {
  const { signal, timeLeftMs, subject, client, requestId, trace } = getContext(c)
  const key = subject?.id ?? client
  return { signal, timeoutMs: timeLeftMs, key, requestId, trace: trace?.traceparent }
}

/** Emptied at the end of the work, because an idle connection's timer keeps it alive. */
const current = new AsyncLocalStorage<{ work: Work | undefined }>()

export const currentWork = (): Work | undefined => current.getStore()?.work

export const currentTrace = (): Trace | undefined => current.getStore()?.work?.trace

export function requestInProgress(): Pick<RequestRecord, 'requestId' | 'route'> | undefined {
  const work = currentWork()
  return work instanceof RequestContext ? work.describe() : undefined
}

/** Runs an attempt at a job as `currentWork()`. */
export async function runJob<T>(
  { id, kind, requestId }: { id: string; kind: string; requestId: string | null },
  trace: Trace | undefined,
  run: () => Promise<T>,
): Promise<T> {
  const describe = () => ({ job: id, kind, requestId: requestId ?? undefined })
  const work: Work = { requestId: requestId ?? undefined, trace, describe }
  const store: { work: Work | undefined } = { work }
  try {
    return await current.run(store, run)
  } finally {
    store.work = undefined
  }
}

/**
 * Must be the first middleware.
 *
 * @param onEnd gets all that ended in one turn of the event loop; one by one costs a tenth of the
 * rate.
 */
export function requestContext(
  timeoutMs: number,
  onEnd: (records: readonly RequestRecord[]) => void,
  startTrace?: (traceparent: unknown, startedAt: number) => Trace | undefined,
): MiddlewareHandler<Env> {
  let ended: RequestRecord[] = []
  const report = () => {
    const records = ended
    ended = []
    onEnd(records)
  }
  return (c, next) => {
    const outgoing = c.env?.outgoing
    const context = new RequestContext(timeoutMs, outgoing, c)
    if (startTrace)
      context.trace = startTrace(outgoing?.req.headers['traceparent'], context.startedAt)
    c.set('requestContext', context)
    const store: { work: Work | undefined } = { work: context }
    // `run()` costs twice as much.
    current.enterWith(store)
    const end = (outgoing: AppResponse) => {
      context.end()
      store.work = undefined
      if (ended.push(toRecord(c, context, outgoing)) === 1) setImmediate(report)
    }
    // The client left early.
    if (outgoing?.req.socket.destroyed) {
      end(outgoing)
      throw clientClosedRequest()
    }
    outgoing?.on('close', () => end(outgoing))
    return next()
  }
}

/** Logs routine requests at `debug`, and counts repeated 429s and 503s. */
export function accessLog(log: Log): (record: RequestRecord) => void {
  const refusals = new Repeats()
  return (record) => {
    const { method, route, status, ms, client, requestId, subject, trace } = record
    const logOthers = (refused: number) => log.info({ method, route, status, refused }, 'requests')
    const isRefusal = status === 503 || status === 429
    if (isRefusal && !refusals.isFirst(`${status} ${method} ${route}`, logOthers)) return
    const traceId = trace?.traceId
    const fields = { method, route, status, ms, client, requestId, subject, traceId }
    log[isRoutine(record) ? 'debug' : 'info'](fields, 'request')
  }
}

/** `X-Background` must not hide a change or a failure. */
export const isRoutine = ({ method, status, background, hasCredentials }: RequestRecord): boolean =>
  background &&
  (method === 'GET' || method === 'HEAD') &&
  (status < 400 || status === CLIENT_CLOSED_REQUEST || (status === 401 && !hasCredentials))

function toRecord(c: AppContext, context: RequestContext, outgoing: AppResponse): RequestRecord {
  const { startedAt, requestId, client, subject, statements, statementCount, trace } = context
  const { headers } = outgoing.req
  return {
    method: c.req.method,
    route: routePath(c, -1),
    status: outgoing.writableFinished ? outgoing.statusCode : CLIENT_CLOSED_REQUEST,
    ms: Math.round((performance.now() - startedAt) * 1_000) / 1_000,
    requestId,
    client,
    subject: subject?.id,
    background: context.isBackground || headers['x-background'] === '1',
    hasCredentials: headers.authorization !== undefined || headers.cookie !== undefined,
    startedAt: TIME_ORIGIN + startedAt,
    statements,
    statementCount,
    trace,
  }
}
