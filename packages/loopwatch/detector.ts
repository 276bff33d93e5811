import { parentPort, workerData } from 'node:worker_threads'
import { type BlockingFrame, findBlockingFrame } from './blocking-frame.ts'
import * as heartbeat from './heartbeat.ts'
import { connectToMainThread, listenForProbes } from './probe-server.ts'
import { recordProfile } from './profile.ts'
import { sampleStack } from './stack-sample.ts'
import type { DetectorData, DetectorMessage, DetectorRequest } from './watchdog.ts'

/**
 * The watchdog's thread: checks the last beat once per period, samples the main thread's stack when
 * it is overdue, and reports the block when the late beat has come.
 */
/** A slower sample had to wait for a native call. */
const LATE_MS = 15
/** At the threshold itself, many a block is over. */
const SAMPLED_SHARE = 0.5
const MS_PER_SAMPLE = 200
/** Delays that have not been reported as blocks. */
const MAX_OPEN = 10
const MAX_STOPS = 10

/** What blocks the event loop since a beat. */
interface Sampling {
  frame?: BlockingFrame
  taken?: Promise<void>
}

/** Time in which neither thread could run. */
interface Stop {
  from: bigint
  to: bigint
  awayNs: bigint
}

if (!parentPort) throw new Error('detector.ts is the entry of a worker thread')
const thread = parentPort
const { cells, periodMs, thresholdMs, channelName, maxSamples, probes }: DetectorData = workerData
const send = (message: DetectorMessage) => thread.postMessage(message)

let polledAt = process.hrtime.bigint()
let ownTimeNs = heartbeat.readOwnThreadTime().totalNs
let mainTimeNs = heartbeat.readMainThreadTime().totalNs
let samplesLeft = maxSamples
/** By the last beat. */
const samplings = new Map<bigint, Sampling>()
const stops: Stop[] = []
/** Blocks are reported in their order. */
let reported: Promise<unknown> = Promise.resolve()

setInterval(poll, periodMs)
setInterval(() => {
  if (samplesLeft < maxSamples) samplesLeft++
}, MS_PER_SAMPLE)
thread.on('message', async (request: DetectorRequest) => {
  if (request.kind === 'profile') return recordProfile(request)
  poll()
  if (request.kind === 'late') return report(request.late)
  await reported
  send({ kind: 'flushed' })
})
const ask = probes && connectToMainThread(probes.port, () => readBlockage().blockedMs)
send({ kind: 'open', url: ask && (await listenForProbes(probes.options, ask, readBlockage)) })

function poll() {
  const now = process.hrtime.bigint()
  const mainTime = heartbeat.readMainThreadTime()
  noteStop(now, mainTime.totalNs)
  const beat = heartbeat.readBeat(cells)
  if (beat === undefined || thresholdMs === 0 || samplings.has(beat)) return
  const delayNs = mainTime.runQueueDelayNs - heartbeat.readRunQueueDelayAtBeat(cells)
  const delayMs = readOverdueMs(now) - heartbeat.toMs(delayNs)
  if (delayMs >= thresholdMs * SAMPLED_SHARE) beginSampling(beat)
}

function noteStop(now: bigint, newMainTimeNs: bigint) {
  const from = polledAt
  const awayNs = awaySincePoll(now, newMainTimeNs)
  if (heartbeat.toMs(awayNs) <= periodMs * 2) return
  stops.push({ from, to: now, awayNs })
  if (stops.length > MAX_STOPS) stops.shift()
}

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
  return Math.max(0, heartbeat.toMs(now - beat) - readStoppedMs(beat, now) - periodMs)
}

function readStoppedMs(from: bigint, to: bigint): number {
  let stoppedNs = 0n
  for (const stop of stops) {
    const overlapNs = min(to, stop.to) - (from > stop.from ? from : stop.from)
    if (overlapNs > 0n) stoppedNs += min(overlapNs, stop.awayNs)
  }
  return heartbeat.toMs(stoppedNs)
}

const min = (one: bigint, other: bigint) => (one < other ? one : other)

function readBlockage() {
  const beat = heartbeat.readBeat(cells)
  const blockedMs = readOverdueMs(process.hrtime.bigint())
  return beat === undefined || blockedMs < periodMs
    ? { blockedMs: 0, blockingFrame: undefined }
    : { blockedMs, blockingFrame: samplings.get(beat)?.frame }
}

function beginSampling(beat: bigint) {
  const sampling: Sampling = {}
  samplings.set(beat, sampling)
  for (const oldest of samplings.keys()) if (samplings.size > MAX_OPEN) samplings.delete(oldest)
  if (samplesLeft < 1) return
  samplesLeft--
  sampling.taken = sample(sampling, beat).catch(() => {})
}

async function sample(sampling: Sampling, beat: bigint) {
  const askedAt = process.hrtime.bigint()
  const before = heartbeat.readMainThreadTime()
  const taken = await sampleStack(channelName)
  if (!taken || taken.beat !== String(beat)) return
  const { runQueueDelayNs } = heartbeat.readMainThreadTime()
  const withoutCoreNs = runQueueDelayNs - before.runQueueDelayNs
  const tookMs = heartbeat.toMs(BigInt(taken.at) - askedAt - withoutCoreNs)
  sampling.frame = findBlockingFrame(taken, tookMs > LATE_MS)
}

function report({ lastBeat, beat, at, blockedMs: unstoppedMs }: heartbeat.LateBeat) {
  const sampling = samplings.get(lastBeat)
  samplings.delete(lastBeat)
  const blockedMs = unstoppedMs - readStoppedMs(lastBeat, beat)
  if (blockedMs < thresholdMs) return
  reported = Promise.all([reported, sampling?.taken]).then(() => {
    const rounded = { at: Math.round(at), blockedMs: Math.round(blockedMs) }
    send({ kind: 'block', block: { ...rounded, ...sampling?.frame } })
  })
}
