import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MessagePort } from 'node:worker_threads'
import { type BlockingFrame, formatFrame } from './blocking-frame.ts'

export interface ProbeServerOptions {
  host: string
  /** 0 for any free port. */
  port: number
  /** `/health/live` fails once the event loop has been blocked for longer. */
  maxBlockedMs: number
  /** What the problem+json body of an error has besides `detail` and `instance`, by status. */
  problems?: Partial<Record<404 | 405 | 503, object>>
}

/** What only the main thread knows. */
export interface Answers {
  readiness: { ready: true } | { ready: false; reason: string }
  /** Prometheus's text format. */
  metrics: string
}

export type Sources = { [Topic in keyof Answers]: () => Promise<Answers[Topic]> }

/** For how long and by what the event loop is blocked; for 0 ms while it turns. */
export interface Blockage {
  blockedMs: number
  blockingFrame: BlockingFrame | undefined
}

/**
 * Readiness waits for a busy event loop. While the loop is blocked, the last answer holds: for as
 * long as three probes of Kubernetes are apart, and until the loop counts as stuck.
 */
const READINESS = { patienceMs: 500, maxAgeMs: 30_000 }
const STUCK_MS = 5_000
/** An old snapshot with its age is better than a scrape that times out. */
const METRICS = { patienceMs: 15, maxAgeMs: Number.POSITIVE_INFINITY }
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

type Response = { metrics: string } | { ok: object } | { status: 404 | 405 | 503; detail: string }

/**
 * Answers `/health/live`, `/health/ready` and `/metrics` on the watchdog's thread, whether or not
 * the event loop is blocked.
 *
 * @returns its URL.
 * @throws NodeJS.ErrnoException when it cannot listen.
 */
export async function listenForProbes(
  { host, port, maxBlockedMs, problems = {} }: ProbeServerOptions,
  ask: ReturnType<typeof connectToMainThread>,
  readBlockage: () => Blockage,
): Promise<string> {
  async function respond(method: string, path: string): Promise<Response> {
    if (!['/health/live', '/health/ready', '/metrics'].includes(path))
      return { status: 404, detail: `There is nothing at ${path}` }
    if (method !== 'GET' && method !== 'HEAD')
      return { status: 405, detail: `${path} does not take ${method}` }
    if (path === '/health/live') return respondLive(readBlockage(), maxBlockedMs)
    if (path === '/health/ready')
      return respondReady(await ask('readiness', READINESS), readBlockage())
    return respondMetrics(await ask('metrics', METRICS), readBlockage())
  }
  const server = createServer(async ({ method = '', url = '' }, outgoing) => {
    const [path = ''] = url.split('?')
    const response = await respond(method, path)
    outgoing.setHeader('Cache-Control', 'no-store')
    if ('metrics' in response)
      return outgoing.setHeader('Content-Type', METRICS_TYPE).end(response.metrics)
    if ('ok' in response) {
      outgoing.setHeader('Content-Type', 'application/json')
      return outgoing.end(JSON.stringify({ status: 'ok', ...response.ok }))
    }
    if (response.status === 405) outgoing.setHeader('Allow', 'GET, HEAD')
    outgoing.writeHead(response.status, { 'Content-Type': 'application/problem+json' })
    outgoing.end(JSON.stringify({ ...problems[response.status], ...response, instance: path }))
  })
  server.listen(port, host)
  await once(server, 'listening')
  // A connection that cannot be accepted, for want of file descriptors, must not end the thread.
  server.on('error', () => {})
  const { address, family, port: bound } = server.address() as AddressInfo
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`
}

function respondLive({ blockedMs, blockingFrame }: Blockage, maxBlockedMs: number): Response {
  if (blockedMs <= maxBlockedMs) return { ok: { blockedMs: Math.round(blockedMs), blockingFrame } }
  const by = blockingFrame ? ` by ${formatFrame(blockingFrame)}` : ''
  const seconds = (blockedMs / 1_000).toFixed(1)
  return { status: 503, detail: `The event loop has been blocked for ${seconds} s${by}` }
}

function respondReady(
  known: Known<Answers['readiness']> | undefined,
  { blockedMs }: Blockage,
): Response {
  const isStale = !known || performance.now() - known.at > READINESS.maxAgeMs
  if (isStale || blockedMs > STUCK_MS) {
    const detail = `The event loop does not answer: it has been blocked for ${Math.round(blockedMs)} ms`
    return { status: 503, detail }
  }
  return known.answer.ready ? { ok: {} } : { status: 503, detail: known.answer.reason }
}

function respondMetrics(known: Known<string> | undefined, { blockedMs }: Blockage): Response {
  const ageMs = known ? performance.now() - known.at : Number.NaN
  const gauges = `
# HELP nodejs_eventloop_current_block_seconds How long the event loop has been blocked by now
# TYPE nodejs_eventloop_current_block_seconds gauge
nodejs_eventloop_current_block_seconds ${(blockedMs / 1_000).toFixed(3)}
# HELP metrics_snapshot_age_seconds Age of all other metrics, which a blocked event loop cannot update
# TYPE metrics_snapshot_age_seconds gauge
metrics_snapshot_age_seconds ${(ageMs / 1_000).toFixed(3)}
`
  return { metrics: `${known?.answer ?? ''}${gauges}` }
}

const POLL_MS = 2
/** However well the event loop turns: the database may hang. */
const MAX_WAIT_MS = 2_000

/** For the main thread: answers what is asked at the other end of the port. */
export function answerQuestions(port: MessagePort, sources: Sources): void {
  port.on('message', (topic: keyof Answers) => {
    const answered = sources[topic]().then((answer) => port.postMessage({ topic, answer }))
    // The other end goes on with the answer before.
    answered.catch(() => {})
  })
  port.unref()
}

/** An answer of the main thread, and when it came, by `performance.now()`. */
interface Known<Answer> {
  answer: Answer
  at: number
}

/**
 * Returns a function that asks the main thread and waits for the answer, 2 s at most. If the event
 * loop has been blocked for `patienceMs`, the last answer must do, unless it is older than
 * `maxAgeMs`.
 */
export function connectToMainThread(port: MessagePort, readBlockedMs: () => number) {
  const newest: { [Topic in keyof Answers]?: Known<Answers[Topic]> } = {}
  port.on('message', ({ topic, answer }) => {
    Object.assign(newest, { [topic]: { answer, at: performance.now() } })
  })
  return async <Topic extends keyof Answers>(
    topic: Topic,
    { patienceMs, maxAgeMs }: { patienceMs: number; maxAgeMs: number },
  ): Promise<Known<Answers[Topic]> | undefined> => {
    const askedAt = performance.now()
    const last = newest[topic]
    const isUsable = last !== undefined && askedAt - last.at <= maxAgeMs
    const mustDo = () => isUsable && readBlockedMs() > patienceMs
    if (!mustDo()) port.postMessage(topic)
    while (newest[topic] === last && !mustDo() && performance.now() - askedAt < MAX_WAIT_MS)
      await sleep(POLL_MS)
    return newest[topic]
  }
}
