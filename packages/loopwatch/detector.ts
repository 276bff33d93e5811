import { parentPort, workerData } from 'node:worker_threads'
import { type BlockingFrame, findBlockingFrame, UNKNOWN } from './blocking-frame.ts'
import * as heartbeat from './heartbeat.ts'
import { connectToMainThread, listenForProbes } from './probe-server.ts'
import { recordProfile } from './profile.ts'
import { sampleStack } from './stack-sample.ts'
import type { DetectorData, DetectorMessage, DetectorRequest } from './watchdog.ts'

/**
 * The watchdog's thread: checks the last beat once per period, samples the main thread's stack when
 * it is overdue, and reports the block when the event loop turns again.
 */
/** A slower sample had to wait for a native call. */
const LATE_MS = 25
/** Blocks in a row that are sampled; then one per MS_PER_SAMPLE. */
const MAX_SAMPLES = 10
const MS_PER_SAMPLE = 5_000

/** A block that is not over, or not reported. */
interface OpenBlock {
  at: number
  frame?: BlockingFrame
  sampling?: Promise<void>
}

if (!parentPort) throw new Error('detector.ts is the entry of a worker thread')
const thread = parentPort
const { cells, periodMs, thresholdMs, channelName, sampleEveryBlock, probes }: DetectorData =
  workerData
const send = (message: DetectorMessage) => thread.postMessage(message)

let lastBeat: bigint | undefined
let runQueueDelayAtBeatNs = 0n
let stoppedNs = 0n
let polledAt = process.hrtime.bigint()
let ownTimeNs = heartbeat.readOwnThreadTime().totalNs
let mainTimeNs = heartbeat.readMainThreadTime().totalNs
let openBlock: OpenBlock | undefined
let samplesLeft = sampleEveryBlock ? Number.POSITIVE_INFINITY : MAX_SAMPLES
/** Blocks are reported in their order. */
let reported: Promise<unknown> = Promise.resolve()

setInterval(poll, periodMs)
setInterval(() => {
  if (samplesLeft < MAX_SAMPLES) samplesLeft++
}, MS_PER_SAMPLE)
thread.on('message', async (request: DetectorRequest) => {
  if (request.kind === 'profile') return recordProfile(request)
  poll()
  await reported
  send({ kind: 'flushed' })
})
const ask = probes && connectToMainThread(probes.port, () => readBlockage().blockedMs)
send({ kind: 'open', url: ask && (await listenForProbes(probes.options, ask, readBlockage)) })

function poll() {
  const now = process.hrtime.bigint()
  const mainTime = heartbeat.readMainThreadTime()
  const awayNs = awaySincePoll(now, mainTime.totalNs)
  const wasStopped = heartbeat.toMs(awayNs) > periodMs * 2
  if (wasStopped) stoppedNs += awayNs
  const beat = heartbeat.readBeat(cells)
  if (beat !== lastBeat) endBlock(beat)
  // The stop may have followed a beat that is new here.
  if (wasStopped && beat !== undefined && stoppedNs === 0n) stoppedNs = now - beat
  if (beat === undefined || openBlock) return
  const overdueMs = readOverdueMs(now)
  if (isBlock(overdueMs - withoutCoreMs(mainTime.runQueueDelayNs))) beginBlock(overdueMs, beat)
}

const isBlock = (ms: number) => thresholdMs > 0 && ms >= thresholdMs

/** Time since the last poll in which neither thread could run. */
function awaySincePoll(now: bigint, newMainTimeNs: bigint): bigint {
  const newOwnTimeNs = heartbeat.readOwnThreadTime().totalNs
  const ownNs = newOwnTimeNs - ownTimeNs
  const mainNs = newMainTimeNs - mainTimeNs
  const awayNs = now - polledAt - (ownNs > mainNs ? ownNs : mainNs)
  polledAt = now
  ownTimeNs = newOwnTimeNs
  mainTimeNs = newMainTimeNs
  return awayNs
}

function readOverdueMs(now: bigint): number {
  const beat = heartbeat.readBeat(cells)
  if (beat === undefined) return 0
  const elapsedNs = now - beat - (beat === lastBeat ? stoppedNs : 0n)
  return Math.max(0, heartbeat.toMs(elapsedNs) - periodMs)
}

function readBlockage() {
  const blockedMs = readOverdueMs(process.hrtime.bigint())
  return blockedMs < periodMs
    ? { blockedMs: 0, blockingFrame: undefined }
    : { blockedMs, blockingFrame: openBlock?.frame }
}

/** How long the main thread waited for a core since the beat. */
const withoutCoreMs = (runQueueDelayNs: bigint) =>
  heartbeat.toMs(runQueueDelayNs - runQueueDelayAtBeatNs)

function beginBlock(overdueMs: number, beat: bigint) {
  openBlock = { at: Date.now() - overdueMs }
  if (samplesLeft < 1) return
  samplesLeft--
  openBlock.sampling = sample(openBlock, beat).catch(() => {})
}

async function sample(block: OpenBlock, beat: bigint) {
  const askedAt = process.hrtime.bigint()
  const taken = await sampleStack(channelName)
  if (!taken || taken.beat !== String(beat)) return
  const tookMs = heartbeat.toMs(BigInt(taken.at) - askedAt)
  block.frame = findBlockingFrame(taken, tookMs > LATE_MS)
}

function endBlock(beat: bigint | undefined) {
  const runQueueDelayNs = heartbeat.readRunQueueDelayAtBeat(cells)
  if (lastBeat !== undefined && beat !== undefined) {
    const betweenMs = heartbeat.toMs(beat - lastBeat - stoppedNs)
    const blockedMs = betweenMs - periodMs - withoutCoreMs(runQueueDelayNs)
    // Checked again: Linux counts a run-queue delay only once it is over. A block between two polls
    // has no sample.
    if (isBlock(blockedMs)) report(openBlock ?? { at: Date.now() - blockedMs }, blockedMs)
  }
  openBlock = undefined
  lastBeat = beat
  stoppedNs = 0n
  runQueueDelayAtBeatNs = runQueueDelayNs
}

function report(block: OpenBlock, blockedMs: number) {
  reported = Promise.all([reported, block.sampling]).then(() => {
    const { at, frame = UNKNOWN } = block
    const rounded = { at: Math.round(at), blockedMs: Math.round(blockedMs) }
    send({ kind: 'block', block: { ...rounded, ...frame } })
  })
}
