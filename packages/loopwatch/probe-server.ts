import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
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
  problems?: Partial<Record<ErrorStatus, object>>
}

type ErrorStatus = 404 | 405 | 503

/** What only the main thread knows. */
export interface Answers {
  readiness: { ready: true } | { ready: false; reason: string }
  /** Prometheus's text format. */
  metrics: string
}

export type Sources = { [Topic in keyof Answers]: () => Promise<Answers[Topic]> }

/** How long the event loop has been blocked by now, and by what as far as that is known. */
export interface Blockage {
  /** 0 while it turns. */
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

/**
 * Answers `/health/live`, `/health/ready` and `/metrics` on the watchdog's thread, whether or not
 * the event loop is blocked.
 *
 * @returns its URL.
 * @throws NodeJS.ErrnoException when it cannot listen.
 */
export async function listenForProbes(
  { host, port, maxBlockedMs, problems = {} }: ProbeServerOptions,
  main: MainThreadClient,
  readBlockage: () => Blockage,
): Promise<string> {
  const routes: Record<string, (response: ServerResponse) => void | Promise<void>> = {
    '/health/live'(response) {
      const { blockedMs, blockingFrame } = readBlockage()
      if (blockedMs <= maxBlockedMs)
        return sendOk(response, { blockedMs: Math.round(blockedMs), blockingFrame })
      const by = blockingFrame ? ` by ${formatFrame(blockingFrame)}` : ''
      const seconds = (blockedMs / 1_000).toFixed(1)
      sendProblem(response, 503, `The event loop has been blocked for ${seconds} s${by}`)
    },
    async '/health/ready'(response) {
      const known = await main.ask('readiness', READINESS)
      const { blockedMs } = readBlockage()
      if (!known || blockedMs > STUCK_MS || performance.now() - known.at > READINESS.maxAgeMs) {
        const detail = `The event loop does not answer: it has been blocked for ${Math.round(blockedMs)} ms`
        return sendProblem(response, 503, detail)
      }
      if (!known.answer.ready) return sendProblem(response, 503, known.answer.reason)
      sendOk(response)
    },
    async '/metrics'(response) {
      const known = await main.ask('metrics', METRICS)
      const ageMs = known ? performance.now() - known.at : Number.NaN
      const gauges = formatGauges(readBlockage().blockedMs / 1_000, ageMs / 1_000)
      send(response, 200, METRICS_TYPE, `${known?.answer ?? ''}${gauges}`)
    },
  }
  const sendProblem = (response: ServerResponse, status: ErrorStatus, detail: string) => {
    const instance = response.req.url?.split('?')[0]
    const body = { ...problems[status], status, detail, instance }
    send(response, status, 'application/problem+json', JSON.stringify(body))
  }
  const server = createServer((request, response) => {
    const { method = '', url = '' } = request
    const [path = ''] = url.split('?')
    const answer = Object.hasOwn(routes, path) ? routes[path] : undefined
    if (!answer) return sendProblem(response, 404, `There is nothing at ${path}`)
    if (method === 'GET' || method === 'HEAD') return answer(response)
    response.setHeader('Allow', 'GET, HEAD')
    sendProblem(response, 405, `${path} does not take ${method}`)
  })
  server.listen(port, host)
  await once(server, 'listening')
  // A connection that cannot be accepted, for want of file descriptors, must not end the thread.
  server.on('error', () => {})
  const address = server.address() as AddressInfo
  const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return `http://${shown}:${address.port}`
}

const sendOk = (response: ServerResponse, facts: object = {}) =>
  send(response, 200, 'application/json', JSON.stringify({ status: 'ok', ...facts }))

function send(response: ServerResponse, status: number, type: string, body: string) {
  response.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' }).end(body)
}

const formatGauges = (blockedSeconds: number, ageSeconds: number) => `
# HELP nodejs_eventloop_current_block_seconds How long the event loop has been blocked by now, 0 while it turns
# TYPE nodejs_eventloop_current_block_seconds gauge
nodejs_eventloop_current_block_seconds ${blockedSeconds.toFixed(3)}
# HELP metrics_snapshot_age_seconds Age of all other metrics, which are not updated while the event loop is blocked
# TYPE metrics_snapshot_age_seconds gauge
metrics_snapshot_age_seconds ${ageSeconds.toFixed(3)}
`

const POLL_MS = 2
/** However well the event loop turns: the database may hang. */
const MAX_WAIT_MS = 2_000

/** For the main thread: answers what `MainThreadClient` asks at the other end of the port. */
export function answerQuestions(port: MessagePort, sources: Sources): void {
  port.on('message', async (topic: keyof Answers) => {
    // After a failure the client goes on with the answer before.
    const answer = await sources[topic]().catch(() => undefined)
    if (answer !== undefined) port.postMessage({ topic, answer })
  })
  port.unref()
}

/** An answer of the main thread, and when it came, by `performance.now()`. */
interface Known<Answer> {
  answer: Answer
  at: number
}

/** Asks the main thread, and makes do with its last answer where that one is blocked. */
export class MainThreadClient {
  readonly #port: MessagePort
  readonly #readBlockedMs: () => number
  readonly #last: { [Topic in keyof Answers]?: Known<Answers[Topic]> } = {}

  constructor(port: MessagePort, readBlockedMs: () => number) {
    this.#port = port
    this.#readBlockedMs = readBlockedMs
    port.on('message', ({ topic, answer }) => {
      Object.assign(this.#last, { [topic]: { answer, at: performance.now() } })
    })
  }

  /**
   * Waits for a new answer, 2 s at most. If the event loop has been blocked for `patienceMs`, the
   * last answer must do, unless it is older than `maxAgeMs`.
   */
  async ask<Topic extends keyof Answers>(
    topic: Topic,
    { patienceMs, maxAgeMs }: { patienceMs: number; maxAgeMs: number },
  ): Promise<Known<Answers[Topic]> | undefined> {
    const askedAt = performance.now()
    const last = this.#last[topic]
    const isUsable = last !== undefined && askedAt - last.at <= maxAgeMs
    const mayGoOn = () => isUsable && this.#readBlockedMs() > patienceMs
    if (!mayGoOn()) this.#port.postMessage(topic)
    while (this.#last[topic] === last && !mayGoOn() && performance.now() - askedAt < MAX_WAIT_MS)
      await sleep(POLL_MS)
    return this.#last[topic]
  }
}
