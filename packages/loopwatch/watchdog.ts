import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { threadEnvironment } from '@offloop/workpool/thread-environment'
import { AppError } from '../../src/errors.ts'
import { explainListen } from '../../src/http/address.ts'
import type { ReadinessAnswer } from '../../src/http/health.ts'
import { createBeats, Heartbeat, lastBeat } from './heartbeat.ts'
import type { Incident } from './incident.ts'
import type {
  Answers,
  MainMessage,
  ServerOptions,
  Subject,
  ThreadData,
  ThreadMessage,
} from './protocol.ts'
import { onLook, type RequestInProgress } from './sight.ts'

/** The beats are so many times as frequent as the threshold is long. */
const BEATS_PER_THRESHOLD = 5
const MIN_PERIOD_MS = 4
const MAX_PERIOD_MS = 20

export interface WatchdogOptions {
  /** An incident is what holds the event loop for longer, in milliseconds; 0 for none ever. */
  thresholdMs: number
  /** Told of each incident once it is over. */
  onIncident: (incident: Incident) => void
  /** The request that the event loop is busy with at this very moment. */
  requestInProgress?: () => RequestInProgress | undefined
  /**
   * Looks at each of them, however many come in a row. For tests: a service looks at the first ten.
   */
  tireless?: boolean
  /**
   * Where the thread answers `/health/live`, `/health/ready` and `/metrics`; not at all if absent.
   */
  server?: ServerOptions | undefined
  /** What the ops server tells while the event loop turns. */
  readiness?: () => Promise<ReadinessAnswer>
  metricsPage?: () => Promise<string>
  /** Told when the thread ended by itself: from then on nobody watches. */
  onCrash?: (error: Error) => void
}

/**
 * A thread that watches the event loop from outside: it names what holds it, and answers probes and
 * scrapes meanwhile. `main.ts` opens it. Nothing is attached to the event loop's thread while all
 * is well: docs/watchdog.md
 */
export class Watchdog implements AsyncDisposable {
  /** Where the ops server listens, if there is one. */
  readonly url: string | undefined
  readonly #thread: Worker
  readonly #heartbeat: Heartbeat
  readonly #endLooks: () => void
  /** Without a threshold and a server nobody wants to know how the loop turns. */
  readonly #isWanted: boolean
  readonly #sources: { [Key in Subject]: () => Promise<Answers[Key]> }
  readonly #settling = new Map<number, () => void>()
  #lastId = 0

  /** @throws AppError when the port is taken or not allowed. */
  static async open(options: WatchdogOptions): Promise<Watchdog> {
    const beats = createBeats()
    const lookName = `offloop.watchdog.${randomUUID()}`
    const { thresholdMs, tireless = false, server } = options
    const periodMs = periodFor(thresholdMs)
    const workerData: ThreadData = { beats, periodMs, thresholdMs, lookName, tireless, server }
    const thread = new Worker(new URL('./watchdog-thread.ts', import.meta.url), {
      name: 'watchdog',
      workerData,
      env: threadEnvironment(),
      // `stripTypeScriptTypes` is experimental.
      execArgv: ['--no-warnings'],
    })
    try {
      const url = await untilOpen(thread, server)
      const endLooks = onLook(
        lookName,
        () => lastBeat(beats),
        options.requestInProgress ?? (() => undefined),
      )
      return new Watchdog(thread, new Heartbeat(beats, periodMs), url, endLooks, options)
    } catch (error) {
      await thread.terminate()
      throw error
    }
  }

  private constructor(
    thread: Worker,
    heartbeat: Heartbeat,
    url: string | undefined,
    endLooks: () => void,
    {
      thresholdMs,
      server,
      onIncident,
      readiness = alwaysReady,
      metricsPage = async () => '',
      onCrash = () => {},
    }: WatchdogOptions,
  ) {
    this.#thread = thread
    this.#heartbeat = heartbeat
    this.url = url
    this.#endLooks = endLooks
    this.#isWanted = thresholdMs > 0 || server !== undefined
    this.#sources = { readiness: async () => withoutCause(await readiness()), metrics: metricsPage }
    thread.on('message', (message: ThreadMessage) => {
      if (message.kind === 'incident') onIncident(message.incident)
      if (message.kind === 'settled') this.#settling.get(message.id)?.()
      if (message.kind === 'ask') void this.#answer(message.id, message.subject)
    })
    thread.on('error', onCrash)
    thread.unref()
  }

  /**
   * Begins to watch: not before, because whatever takes long while the service starts keeps nobody
   * waiting.
   */
  start(): void {
    if (this.#isWanted) this.#heartbeat.start()
  }

  /** Resolves when `onIncident` has been told of all that is over by now. */
  async settle(): Promise<void> {
    const id = ++this.#lastId
    const { promise: settled, resolve } = Promise.withResolvers<void>()
    this.#settling.set(id, resolve)
    this.#heartbeat.beat()
    this.#tell({ kind: 'settle', id })
    await settled
    this.#settling.delete(id)
  }

  async [Symbol.asyncDispose]() {
    this.#heartbeat.stop()
    this.#endLooks()
    await this.#thread.terminate()
  }

  /** A source that fails leaves the thread with what it knew before. */
  async #answer(id: number, subject: Subject) {
    const answer = await this.#sources[subject]().catch(() => undefined)
    if (answer !== undefined) this.#tell({ kind: 'answer', id, subject, answer } as MainMessage)
  }

  #tell(message: MainMessage) {
    this.#thread.postMessage(message)
  }
}

async function untilOpen(
  thread: Worker,
  server: ServerOptions | undefined,
): Promise<string | undefined> {
  const [message]: ThreadMessage[] = await once(thread, 'message')
  if (message?.kind === 'open') return message.url
  const error = message?.kind === 'failed' ? message.error : undefined
  const { host = '', port = 0 } = server ?? {}
  throw new AppError(
    'unavailable',
    explainListen(Object.assign(new Error(error?.message), error), host, port, 'OPS_PORT'),
  )
}

const periodFor = (thresholdMs: number) =>
  thresholdMs === 0
    ? MAX_PERIOD_MS
    : Math.min(
        MAX_PERIOD_MS,
        Math.max(MIN_PERIOD_MS, Math.floor(thresholdMs / BEATS_PER_THRESHOLD)),
      )

/** A cause may be anything, also what cannot be sent. */
const withoutCause = (answer: ReadinessAnswer) =>
  answer.ready ? answer : { ready: answer.ready, reason: answer.reason }

const alwaysReady = async (): Promise<ReadinessAnswer> => ({ ready: true })
