import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import * as frames from './blocking-frame.ts'
import * as heartbeat from './heartbeat.ts'
import { listenForProbes, MainThreadClient, type ProbeServerOptions } from './probe-server.ts'
import { sampleStack } from './stack-sample.ts'

const NS_PER_MS = 1_000_000
/** A sample that takes longer had to wait for the end of a native call. */
const LATE_MS = 25
/** Blocks in a row that are sampled, and the time after which one more is. */
const MAX_SAMPLES = 10
const MS_PER_SAMPLE = 5_000

/** What the thread is started with. */
export interface DetectorData {
  cells: heartbeat.HeartbeatCells
  periodMs: number
  thresholdMs: number
  /** The channel that `answerSamples` listens to. */
  channelName: string
  sampleEveryBlock: boolean
  /** The port leads to `answerQuestions`. */
  probes: { port: MessagePort; options: ProbeServerOptions } | undefined
}

/** What the thread sends. Any message to it asks for a `flushed`, which comes in order. */
export type DetectorMessage =
  | { kind: 'open'; url: string | undefined }
  | { kind: 'block'; block: frames.Block }
  | { kind: 'flushed' }

/** A block that is not over, or not reported. */
interface OpenBlock {
  at: number
  frame?: frames.BlockingFrame
  sampling?: Promise<void>
}

/**
 * Compares the last beat with the clock once in a period, samples the main thread's stack when the
 * beat is overdue, and reports the block when the event loop turns again.
 */
class Detector {
  readonly #data: DetectorData
  readonly #report: (block: frames.Block) => void
  readonly #reporting = new Set<Promise<void>>()
  #beat: bigint | undefined
  #delayAtBeatNs = 0n
  /** Time since the beat in which the whole process was stopped. */
  #stoppedNs = 0n
  #polledAt = process.hrtime.bigint()
  #ownTime = heartbeat.readOwnThreadTime()
  #mainTime = heartbeat.readMainThreadTime()
  #block: OpenBlock | undefined
  /** Limited, so that sampling does not slow down an event loop that is blocked over and over. */
  #samplesLeft: number

  constructor(data: DetectorData, report: (block: frames.Block) => void) {
    this.#data = data
    this.#report = report
    this.#samplesLeft = data.sampleEveryBlock ? Number.POSITIVE_INFINITY : MAX_SAMPLES
    setInterval(() => this.#poll(), data.periodMs)
    setInterval(() => {
      if (this.#samplesLeft < MAX_SAMPLES) this.#samplesLeft++
    }, MS_PER_SAMPLE)
  }

  readBlockage = () => {
    const blockedMs = this.#overdueMs(process.hrtime.bigint())
    return blockedMs < this.#data.periodMs
      ? { blockedMs: 0, blockingFrame: undefined }
      : { blockedMs, blockingFrame: this.#block?.frame }
  }

  /** Resolves when all blocks that are over by now have been reported. */
  async flush(): Promise<void> {
    this.#poll()
    await Promise.all(this.#reporting)
  }

  #poll() {
    const now = process.hrtime.bigint()
    const mainTime = heartbeat.readMainThreadTime()
    const stoppedNs = this.#stoppedSincePoll(now, mainTime)
    const wasStopped = Number(stoppedNs) / NS_PER_MS > this.#data.periodMs * 2
    if (wasStopped) this.#stoppedNs += stoppedNs
    const beat = heartbeat.readBeat(this.#data.cells)
    if (beat !== this.#beat) this.#endBlock(beat)
    // The process may have been stopped after a beat that is new here.
    if (wasStopped && beat !== undefined && this.#stoppedNs === 0n) this.#stoppedNs = now - beat
    if (beat === undefined || this.#block) return
    const overdueMs = this.#overdueMs(now)
    if (this.#isBlock(overdueMs - this.#withoutCoreMs(mainTime.runQueueDelayNs)))
      this.#beginBlock(overdueMs, beat)
  }

  #isBlock(ms: number): boolean {
    return this.#data.thresholdMs > 0 && ms >= this.#data.thresholdMs
  }

  /** Time since the last poll in which neither this thread nor the main thread could run. */
  #stoppedSincePoll(now: bigint, mainTime: heartbeat.ThreadTime): bigint {
    const ownTime = heartbeat.readOwnThreadTime()
    const ownNs = elapsedNs(this.#ownTime, ownTime)
    const mainNs = elapsedNs(this.#mainTime, mainTime)
    const stoppedNs = now - this.#polledAt - (ownNs > mainNs ? ownNs : mainNs)
    this.#polledAt = now
    this.#ownTime = ownTime
    this.#mainTime = mainTime
    return stoppedNs
  }

  /** How long the next beat has been due. */
  #overdueMs(now: bigint): number {
    const beat = heartbeat.readBeat(this.#data.cells)
    if (beat === undefined) return 0
    const stoppedNs = beat === this.#beat ? this.#stoppedNs : 0n
    return Math.max(0, Number(now - beat - stoppedNs) / NS_PER_MS - this.#data.periodMs)
  }

  /** Since the last beat: time in which the main thread's code cannot have blocked anything. */
  #withoutCoreMs(runQueueDelayNs: bigint): number {
    return Number(runQueueDelayNs - this.#delayAtBeatNs) / NS_PER_MS
  }

  #beginBlock(overdueMs: number, beat: bigint) {
    const block: OpenBlock = { at: Date.now() - overdueMs }
    this.#block = block
    if (this.#samplesLeft < 1) return
    this.#samplesLeft--
    block.sampling = this.#sample(block, beat).catch(() => {})
  }

  async #sample(block: OpenBlock, beat: bigint) {
    const askedAt = process.hrtime.bigint()
    const sample = await sampleStack(this.#data.channelName)
    if (!sample || sample.beat !== String(beat)) return
    const tookMs = Number(BigInt(sample.takenAt) - askedAt) / NS_PER_MS
    block.frame = frames.findBlockingFrame(sample, tookMs > LATE_MS)
  }

  #endBlock(beat: bigint | undefined) {
    // As of the beat: the main thread may have waited for a core since.
    const runQueueDelayNs = heartbeat.readDelayAtBeat(this.#data.cells)
    if (this.#beat !== undefined && beat !== undefined) {
      const betweenMs = Number(beat - this.#beat - this.#stoppedNs) / NS_PER_MS
      const blockedMs = betweenMs - this.#data.periodMs - this.#withoutCoreMs(runQueueDelayNs)
      // Again, because Linux counts a run-queue delay only when it is over. A block that came and
      // went between two polls has no sample.
      if (this.#isBlock(blockedMs))
        this.#finish(this.#block ?? { at: Date.now() - blockedMs }, Math.round(blockedMs))
    }
    this.#block = undefined
    this.#beat = beat
    this.#stoppedNs = 0n
    this.#delayAtBeatNs = runQueueDelayNs
  }

  #finish(block: OpenBlock, blockedMs: number) {
    const report = async () => {
      await block.sampling
      const { at, frame = frames.UNKNOWN_FRAME } = block
      this.#report({ at: Math.round(at), blockedMs, ...frame })
    }
    const reporting = report().finally(() => this.#reporting.delete(reporting))
    this.#reporting.add(reporting)
  }
}

const elapsedNs = (before: heartbeat.ThreadTime, after: heartbeat.ThreadTime): bigint =>
  after.onCoreNs + after.runQueueDelayNs - before.onCoreNs - before.runQueueDelayNs

if (!parentPort) throw new Error('detector.ts is the entry of a worker thread')
const thread = parentPort
const send = (message: DetectorMessage) => thread.postMessage(message)
const data: DetectorData = workerData
const detector = new Detector(data, (block) => send({ kind: 'block', block }))
thread.on('message', async () => {
  await detector.flush()
  send({ kind: 'flushed' })
})

let url: string | undefined
if (data.probes) {
  const { port, options } = data.probes
  const main = new MainThreadClient(port, () => detector.readBlockage().blockedMs)
  url = await listenForProbes(options, main, detector.readBlockage)
}
send({ kind: 'open', url })
