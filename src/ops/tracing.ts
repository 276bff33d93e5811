import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { JobContext } from '@offloop/jobs/job'
import type { Timing } from '@offloop/workpool/pool'
import {
  type Attributes,
  type Link,
  ROOT_CONTEXT,
  SamplingDecision,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
} from '@opentelemetry/api'
import { millisToHrTime, parseTraceParent } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources'
import {
  BatchSpanProcessor,
  RandomIdGenerator,
  type ReadableSpan,
  type SpanExporter,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace'
import type { Config } from '../config.ts'
import { currentTrace, type RequestRecord, runJob, type Trace } from '../http/context.ts'
import type { Log } from '../log.ts'

const SEND_EVERY_MS = 1_000
/** Encoded on the event loop in half a millisecond. */
const MAX_BATCH = 512
const MAX_WAITING = 8_192
const CLOSE_TIMEOUT_MS = 1_000
/** Per request or job. */
const MAX_SPANS = 200
const TIME_ORIGIN = performance.timeOrigin
const SCOPE = { name: 'offloop' }

interface EndedStatement {
  name: string
  text: string
  /** By `performance.now()`. */
  startedAt: number
  ms: number
  failed: boolean
  session: object
}

/** Times are in milliseconds since the epoch. */
interface EndedSpan {
  name: string
  kind?: SpanKind
  startedAt: number
  endedAt: number
  failed: boolean
  attributes?: Attributes
  links?: Link[]
}

/** Sends what requests and jobs do to an OpenTelemetry collector. */
export class Tracing implements AsyncDisposable {
  readonly #followsParent: boolean
  readonly #ratio: number
  readonly #sampler: TraceIdRatioBasedSampler
  readonly #ids = new RandomIdGenerator()
  readonly #resource = resourceFromAttributes({
    'service.name': 'offloop',
    'service.instance.id': randomUUID(),
    'process.pid': process.pid,
  }).merge(detectResources({ detectors: [envDetector] }))
  readonly #sender: Sender
  /** Requests and jobs in progress, by traceparent. */
  readonly #inProgress = new Map<string, Recording>()
  readonly #transactions = new WeakMap<object, Recording>()

  constructor(
    { endpoint, ratio, followsParent }: NonNullable<Config['tracing']>,
    log: Pick<Log, 'info' | 'warn'>,
    onDrop: (spans: number) => void,
  ) {
    this.#followsParent = followsParent
    this.#ratio = ratio
    this.#sampler = new TraceIdRatioBasedSampler(ratio)
    const url = `${endpoint.replace(/\/$/, '')}/v1/traces`
    this.#sender = new Sender(new OTLPTraceExporter({ url }), log, onDrop)
  }

  /** @param startedAt by `performance.now()`. */
  startRequest = (traceparent: unknown, startedAt: number): Trace | undefined => {
    const parent = typeof traceparent === 'string' ? parseTraceParent(traceparent) : null
    return this.#isSampled(parent) ? this.#start(TIME_ORIGIN + startedAt, parent) : undefined
  }

  observeRequests(records: readonly RequestRecord[]): void {
    for (const { trace, method, route, status, requestId, startedAt, ms } of records) {
      if (!(trace instanceof Recording)) continue
      const attributes = {
        'http.request.method': method,
        'http.route': route,
        'http.response.status_code': status,
        'request.id': requestId,
      }
      const span = { name: `${method} ${route}`, kind: SpanKind.SERVER, attributes }
      this.#end(trace, { ...span, endedAt: startedAt + ms, failed: status >= 500 })
    }
  }

  observeStatement(trace: Trace, statement: EndedStatement): void {
    if (!(trace instanceof Recording)) return
    const { name, text, ms, failed, session } = statement
    const startedAt = TIME_ORIGIN + statement.startedAt
    const endedAt = startedAt + ms
    if (text === 'begin' && !failed && ++trace.root.spans <= MAX_SPANS)
      this.#transactions.set(session, new Recording(this.#toChild(trace), trace, startedAt))
    const transaction = this.#transactions.get(session)
    const attributes = {
      'db.system.name': 'mysql',
      'db.query.summary': name,
      'db.query.text': text,
    }
    const span = { name, kind: SpanKind.CLIENT, startedAt, endedAt, failed, attributes }
    this.#add(span, transaction ?? trace)
    if (!transaction) return
    const hasCommitted = text === 'commit' && !failed
    if (text === 'rollback' || hasCommitted)
      this.#endTransaction(transaction, endedAt, !hasCommitted)
    // A killed statement ends after the rollback.
    if (hasCommitted) this.#transactions.delete(session)
  }

  observeTask(timing: Omit<Timing, 'queuedAt' | 'requestId'>): void {
    const { trace, task, thread, outcome, items, queuedMs, runMs, startedAt, endedAt } = timing
    const parent = trace && (this.#inProgress.get(trace) ?? parseTraceParent(trace))
    if (!parent) return
    const attributes = {
      'thread.name': thread,
      'task.outcome': outcome,
      'task.items': items,
      'task.queued_ms': queuedMs,
      'task.run_ms': runMs,
    }
    const failed = outcome !== 'succeeded'
    this.#add({ name: `task ${task}`, startedAt, endedAt, failed, attributes }, parent)
  }

  observePublish = (topic: string, event: string): (() => void) | undefined => {
    const trace = currentTrace()
    if (!(trace instanceof Recording)) return undefined
    const startedAt = TIME_ORIGIN + performance.now()
    const attributes = {
      'messaging.system': 'socket.io',
      'messaging.operation.type': 'send',
      'messaging.destination.name': topic,
    }
    const span = { name: `publish ${event}`, kind: SpanKind.PRODUCER, startedAt, attributes }
    return () =>
      this.#add({ ...span, endedAt: TIME_ORIGIN + performance.now(), failed: false }, trace)
  }

  /** Its trace links to that of the request that enqueued it. */
  runJob = async (job: JobContext, run: () => Promise<unknown>): Promise<unknown> => {
    const enqueuer = job.trace === null ? null : parseTraceParent(job.trace)
    if (!enqueuer && Math.random() >= this.#ratio) return runJob(job, undefined, run)
    const trace = this.#start(TIME_ORIGIN + performance.now(), null)
    let failed = true
    try {
      const result = await runJob(job, trace, run)
      failed = false
      return result
    } finally {
      const { id, attempt, requestId } = job
      this.#end(trace, {
        name: `job ${job.kind}`,
        kind: SpanKind.CONSUMER,
        endedAt: TIME_ORIGIN + performance.now(),
        failed,
        attributes: {
          'job.id': id,
          'job.attempt': attempt,
          ...(requestId !== null && { 'request.id': requestId }),
        },
        links: enqueuer ? [{ context: enqueuer }] : [],
      })
    }
  }

  async [Symbol.asyncDispose]() {
    await Promise.race([this.#sender.close(), sleep(CLOSE_TIMEOUT_MS, undefined, { ref: false })])
  }

  #isSampled(parent: SpanContext | null): boolean {
    if (!parent) return Math.random() < this.#ratio
    if (this.#followsParent) return (parent.traceFlags & TraceFlags.SAMPLED) !== 0
    const { decision } = this.#sampler.shouldSample(ROOT_CONTEXT, parent.traceId)
    return decision === SamplingDecision.RECORD_AND_SAMPLED
  }

  #start(startedAt: number, parent: SpanContext | null): Recording {
    const own = this.#toChild(parent ?? { traceId: this.#ids.generateTraceId() })
    const recording = new Recording(own, parent ?? undefined, startedAt)
    this.#inProgress.set(recording.traceparent, recording)
    return recording
  }

  #end(recording: Recording, span: Omit<EndedSpan, 'startedAt'>) {
    this.#inProgress.delete(recording.traceparent)
    const leftOut = recording.spans - MAX_SPANS
    const attributes =
      leftOut > 0 ? { ...span.attributes, spans_left_out: leftOut } : span.attributes
    const { startedAt, parent } = recording
    this.#send({ ...span, ...(attributes && { attributes }), startedAt }, recording, parent)
  }

  #endTransaction(transaction: Recording, endedAt: number, failed: boolean) {
    const { startedAt, parent } = transaction
    if (!transaction.hasEnded)
      this.#send({ name: 'transaction', startedAt, endedAt, failed }, transaction, parent)
    transaction.hasEnded = true
  }

  #add(span: EndedSpan, parent: Recording | SpanContext) {
    if (parent instanceof Recording && ++parent.root.spans > MAX_SPANS) return
    this.#send(span, this.#toChild(parent), parent)
  }

  #toChild({ traceId }: { traceId: string }): SpanContext {
    return { traceId, spanId: this.#ids.generateSpanId(), traceFlags: TraceFlags.SAMPLED }
  }

  /** As a plain object: a span of the SDK's costs twenty times as much. */
  #send(
    { name, kind = SpanKind.INTERNAL, startedAt, endedAt, failed, ...span }: EndedSpan,
    own: SpanContext,
    parent: SpanContext | undefined,
  ) {
    const { attributes = {}, links = [] } = span
    this.#sender.add({
      name,
      kind,
      spanContext: () => own,
      ...(parent && { parentSpanContext: parent }),
      startTime: millisToHrTime(startedAt),
      endTime: millisToHrTime(Math.max(startedAt, endedAt)),
      duration: millisToHrTime(Math.max(0, endedAt - startedAt)),
      ended: true,
      status: { code: failed ? SpanStatusCode.ERROR : SpanStatusCode.UNSET },
      attributes,
      links,
      events: [],
      resource: this.#resource,
      instrumentationScope: SCOPE,
      droppedAttributesCount: 0,
      droppedEventsCount: 0,
      droppedLinksCount: 0,
    })
  }
}

/** A span that has not ended and may have children. */
class Recording implements Trace, SpanContext {
  readonly traceId: string
  readonly spanId: string
  readonly traceFlags = TraceFlags.SAMPLED
  readonly traceparent: string
  readonly parent: SpanContext | undefined
  readonly root: Recording
  readonly startedAt: number
  /** Below a root. */
  spans = 0
  hasEnded = false

  constructor(
    { traceId, spanId }: SpanContext,
    parent: SpanContext | undefined,
    startedAt: number,
  ) {
    this.traceId = traceId
    this.spanId = spanId
    this.traceparent = `00-${traceId}-${spanId}-01`
    this.parent = parent
    this.root = parent instanceof Recording ? parent.root : this
    this.startedAt = startedAt
  }
}

/** Bounds what waits for the collector. */
class Sender {
  readonly #batches: BatchSpanProcessor
  readonly #log: Pick<Log, 'info' | 'warn'>
  readonly #onDrop: (spans: number) => void
  #waiting = 0
  #dropped = 0

  constructor(
    exporter: SpanExporter,
    log: Pick<Log, 'info' | 'warn'>,
    onDrop: (spans: number) => void,
  ) {
    this.#log = log
    this.#onDrop = onDrop
    const send: SpanExporter['export'] = (spans, done) =>
      exporter.export(spans, (result) => {
        this.#waiting -= spans.length
        if (result.error) this.#drop(spans.length, result.error)
        else if (this.#waiting < MAX_BATCH) this.#recover()
        done(result)
      })
    this.#batches = new BatchSpanProcessor({
      exporter: { export: send, shutdown: () => exporter.shutdown() },
      maxQueueSize: MAX_WAITING,
      maxExportBatchSize: MAX_BATCH,
      scheduledDelayMillis: SEND_EVERY_MS,
    })
  }

  add(span: ReadableSpan): void {
    if (this.#waiting >= MAX_WAITING) this.#drop(1)
    else {
      this.#waiting++
      this.#batches.onEnd(span)
    }
  }

  close(): Promise<void> {
    return this.#batches.shutdown().catch(() => {})
  }

  #drop(spans: number, error?: Error) {
    if (this.#dropped === 0)
      this.#log.warn(
        { err: error ?? new Error('It is too slow') },
        'The collector does not take all spans: dropping some',
      )
    this.#dropped += spans
    this.#onDrop(spans)
  }

  #recover() {
    if (this.#dropped === 0) return
    this.#log.info({ dropped: this.#dropped }, 'The collector takes spans again')
    this.#dropped = 0
  }
}
