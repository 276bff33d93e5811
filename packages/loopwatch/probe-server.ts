import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MessagePort } from 'node:worker_threads'
import { type BlockingFrame, formatCause } from './blocking-frame.ts'

export interface ProbeServerOptions {
  host: string
  port: number
  /** `/health/live` fails once the event loop has been blocked for longer. */
  maxBlockedMs: number
  /** More members of the problem+json bodies. */
  problems?: Partial<Record<404 | 405 | 503, object>>
}

/** What only the main thread knows. */
export interface Answers {
  readiness: { ready: true; facts?: object } | { ready: false; reason: string }
  /** Prometheus's text format. */
  metrics: string
}

export type Sources = { [Topic in keyof Answers]: () => Promise<Answers[Topic]> }

/** How long the event loop is blocked, 0 while it turns, and by what. */
export interface Blockage {
  blockedMs: number
  blockingFrame: BlockingFrame | undefined
}

/**
 * Readiness waits for a busy event loop. While that is blocked, the last answer holds for three
 * probes of Kubernetes, or until the loop counts as stuck.
 */
const READINESS = { patienceMs: 500, maxAgeMs: 30_000 }
const STUCK_MS = 5_000
/** An old snapshot with its age is better than a scrape that times out. */
const METRICS = { patienceMs: 15, maxAgeMs: Number.POSITIVE_INFINITY }
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/**
 * Answers `/health/live`, `/health/ready` and `/metrics` on the watchdog's thread.
 *
 * @returns its URL.
 * @throws NodeJS.ErrnoException when it cannot listen.
 */
export async function listenForProbes(
  { host, port, maxBlockedMs, problems = {} }: ProbeServerOptions,
  ask: ReturnType<typeof connectToMainThread>,
  readBlockage: () => Blockage,
): Promise<string> {
  const sendProblem = (response: ServerResponse, status: 404 | 405 | 503, detail: string) => {
    const instance = response.req.url?.split('?')[0]
    const body = { ...problems[status], status, detail, instance }
    send(response, status, 'application/problem+json', JSON.stringify(body))
  }
  const routes: Record<string, (response: ServerResponse) => void> = {
    '/health/live'(response) {
      const { blockedMs, blockingFrame } = readBlockage()
      if (blockedMs <= maxBlockedMs)
        return sendOk(response, { blockedMs: Math.round(blockedMs), blockingFrame })
      const cause = blockingFrame ? formatCause(blockingFrame) : ''
      const seconds = (blockedMs / 1_000).toFixed(1)
      sendProblem(response, 503, `The event loop has been blocked for ${seconds} s${cause}`)
    },
    async '/health/ready'(response) {
      const known = await ask('readiness', READINESS)
      const blockedMs = Math.round(readBlockage().blockedMs)
      if (!known || blockedMs > STUCK_MS || performance.now() - known.at > READINESS.maxAgeMs)
        sendProblem(response, 503, `No answer: the event loop is blocked for ${blockedMs} ms`)
      else if (known.answer.ready) sendOk(response, known.answer.facts)
      else sendProblem(response, 503, known.answer.reason)
    },
    async '/metrics'(response) {
      const known = await ask('metrics', METRICS)
      const ageMs = known ? performance.now() - known.at : Number.NaN
      const { blockedMs } = readBlockage()
      const metrics = [
        known?.answer,
        gauge('nodejs_eventloop_current_block_seconds', 'Length of the block until now', blockedMs),
        gauge('metrics_snapshot_age_seconds', 'Age of all other metrics', ageMs),
      ]
      send(response, 200, METRICS_TYPE, metrics.join(''))
    },
  }
  const server = createServer(({ method = '', url = '' }, response) => {
    const [path = ''] = url.split('?')
    const answer = Object.hasOwn(routes, path) ? routes[path] : undefined
    if (!answer) return sendProblem(response, 404, `There is nothing at ${path}`)
    if (method === 'GET' || method === 'HEAD') return answer(response)
    response.setHeader('Allow', 'GET, HEAD')
    sendProblem(response, 405, `${path} does not take ${method}`)
  })
  server.listen(port, host)
  await once(server, 'listening')
  // Running out of file descriptors must not end the thread.
  server.on('error', () => {})
  const { address, family, port: bound } = server.address() as AddressInfo
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`
}

const gauge = (name: string, help: string, ms: number) =>
  `\n# HELP ${name} ${help}\n# TYPE ${name} gauge\n${name} ${(ms / 1_000).toFixed(3)}\n`

const sendOk = (response: ServerResponse, facts: object = {}) =>
  send(response, 200, 'application/json', JSON.stringify({ status: 'ok', ...facts }))

const send = (response: ServerResponse, status: number, type: string, body: string) =>
  response.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' }).end(body)

const POLL_MS = 2
/** The database may hang while the event loop turns. */
const MAX_WAIT_MS = 2_000

/** For the main thread: answers what `connectToMainThread` asks. */
export function answerQuestions(port: MessagePort, sources: Sources): void {
  port.on('message', (topic: keyof Answers) => {
    const answered = sources[topic]().then((answer) => port.postMessage({ topic, answer }))
    // The other end keeps the previous answer.
    answered.catch(() => {})
  })
  port.unref()
}

/** An answer, and when it came by `performance.now()`. */
interface Known<Answer> {
  answer: Answer
  at: number
}

/**
 * Returns a function that asks the main thread. While the event loop is blocked for over
 * `patienceMs`, an answer of at most `maxAgeMs` will do.
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
