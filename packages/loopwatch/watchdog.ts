import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { enableCompileCache, getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { Block } from './blocking-frame.ts'
import { type Cells, createCells, Heartbeat, type LateBeat, readBeat } from './heartbeat.ts'
import { answerQuestions, type ProbeServerOptions, type Sources } from './probe-server.ts'
import { answerSamples, type CurrentRequest } from './stack-sample.ts'

const BEATS_PER_THRESHOLD = 5
const MIN_PERIOD_MS = 4
const MAX_PERIOD_MS = 20
const MAX_SAMPLES = 200

export interface WatchdogOptions extends Partial<Sources> {
  /** The event loop is blocked if it does not turn for longer; 0 reports no block. */
  thresholdMs: number
  /** Called with each block once it is over. */
  onBlock: (block: Block) => void
  currentRequest?: () => CurrentRequest | undefined
  /** Samples in a row, then five a second: each takes up to 1 ms of the event loop. */
  maxSamples?: number
  /** Where to answer probes and scrapes; nowhere if absent. */
  probes?: ProbeServerOptions | undefined
  /** Called if the thread ends by itself: blocks then go unnoticed. */
  onCrash?: (error: Error) => void
}

/** The `workerData` of `detector.ts`. */
export interface DetectorData {
  cells: Cells
  periodMs: number
  thresholdMs: number
  /** The channel that `answerSamples` listens to. */
  channelName: string
  maxSamples: number
  /** The port leads to `answerQuestions`. */
  probes: { port: MessagePort; options: ProbeServerOptions } | undefined
}

/** What `detector.ts` receives. It answers `flush` with `flushed`, in order. */
export type DetectorRequest = { kind: 'late'; late: LateBeat } | { kind: 'flush' }

/** What `detector.ts` sends. */
export type DetectorMessage =
  | { kind: 'open'; url: string | undefined }
  | { kind: 'block'; block: Block }
  | { kind: 'flushed' }

/** A thread that names the function that blocks the event loop, and answers probes meanwhile. */
export class Watchdog implements AsyncDisposable {
  url: string | undefined
  readonly #heartbeat: Heartbeat
  readonly #thread: Worker
  readonly #stopSamples: () => void
  readonly #flushing: (() => void)[] = []
  readonly #ended: Promise<unknown>

  /** @throws NodeJS.ErrnoException when it cannot listen for probes. */
  static async open(options: WatchdogOptions): Promise<Watchdog> {
    const watchdog = new Watchdog(options)
    try {
      // Rejects with what the thread throws.
      const [{ url }] = await once(watchdog.#thread, 'message')
      watchdog.url = url
    } catch (error) {
      watchdog.#stopSamples()
      throw error
    }
    watchdog.#thread.on('error', options.onCrash ?? (() => {})).unref()
    return watchdog
  }

  private constructor({
    thresholdMs,
    onBlock,
    currentRequest = () => undefined,
    maxSamples = MAX_SAMPLES,
    probes,
    readiness = async () => ({ ready: true }),
    metrics = async () => '',
  }: WatchdogOptions) {
    const cells = createCells()
    const periodMs = thresholdMs === 0 ? MAX_PERIOD_MS : choosePeriodMs(thresholdMs)
    const channelName = `loopwatch.${randomUUID()}`
    const { port1, port2 } = new MessageChannel()
    answerQuestions(port1, { readiness, metrics })
    const workerData: DetectorData = {
      cells,
      periodMs,
      thresholdMs,
      channelName,
      maxSamples,
      probes: probes && { port: port2, options: probes },
    }
    const onLate = (late: LateBeat) => this.#send({ kind: 'late', late })
    this.#heartbeat = new Heartbeat({ cells, periodMs, thresholdMs, onLate })
    this.#stopSamples = answerSamples(channelName, () => readBeat(cells), currentRequest)
    enableCompileCache()
    const folder = getCompileCacheDir()
    this.#thread = new Worker(new URL('./detector.ts', import.meta.url), {
      name: 'watchdog',
      workerData,
      transferList: probes ? [port2] : [],
      // The compile cache speeds up the start; nothing else is needed.
      env: folder ? { NODE_COMPILE_CACHE: dirname(folder) } : {},
    })
    this.#thread.on('message', (message: DetectorMessage) => {
      if (message.kind === 'block') onBlock(message.block)
      if (message.kind === 'flushed') this.#flushing.shift()?.()
    })
    this.#ended = new Promise((resolve) => this.#thread.once('exit', resolve))
  }

  /** Begins to watch. Blocks during startup keep no request waiting. */
  start(): void {
    this.#heartbeat.start()
  }

  /** The event loop's delay since the last call. */
  readDelay = () => this.#heartbeat.readDelay()

  /** Resolves once `onBlock` has received all blocks that are over. */
  async flush(): Promise<void> {
    const { promise: flushed, resolve } = Promise.withResolvers<void>()
    this.#flushing.push(resolve)
    this.#heartbeat.beat()
    this.#send({ kind: 'flush' })
    await Promise.race([flushed, this.#ended])
  }

  #send(request: DetectorRequest) {
    this.#thread.postMessage(request)
  }

  async [Symbol.asyncDispose]() {
    this.#heartbeat.stop()
    this.#stopSamples()
    await this.#thread.terminate()
  }
}

const choosePeriodMs = (thresholdMs: number) =>
  Math.min(MAX_PERIOD_MS, Math.max(MIN_PERIOD_MS, Math.floor(thresholdMs / BEATS_PER_THRESHOLD)))
