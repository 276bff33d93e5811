import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { constants, setPriority } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Pool } from 'undici'
import { end, nextMessage } from './child.ts'

/**
 * Sends requests for one URL at a steady rate, as many people do who know nothing of each other,
 * and times each answer from the moment when its request was due. A client that waits for an answer
 * before it asks again would spare a server that stops for a second all but one request.
 *
 * This file is three things: what the bench imports, the process that sends, so that no other load
 * delays what it measures, and the thread there that keeps time.
 */
export interface Prober extends AsyncDisposable {
  /** One at a time. */
  probe(order: ProbeOrder): Promise<ProbeResult>
}

interface ProbeOrder {
  url: string
  perSecond: number
  /** Until the first request; the thread that keeps time needs some 100 ms of it to start. */
  startInMs: number
  durationMs: number
  /** The most connections; further requests wait here, and their clocks run. */
  connections?: number
}

/** The end of one request. */
export interface Answer {
  /** 0 where there was none. */
  status: number
  /** From the moment when it was due. */
  ms: number
  /** When it came, from the moment when the first request was due. */
  atMs: number
}

export interface ProbeResult {
  answers: Answer[]
  /** One for each request, whatever its end. */
  latenciesMs: number[]
  /** How many ended in anything but a 200. */
  failed: number
  /** How late each request left, which is part of its latency: the prober itself lacked CPU. */
  lagsMs: number[]
}

const CONNECTIONS = 256
/** After the last request was sent; what has no answer by then has failed. */
const ANSWER_TIMEOUT_MS = 30_000
/** Linux's way to run a command that gets a core the moment it wants one. */
const REAL_TIME = ['chrt', '-f', '1']

/**
 * Whether the prober may have that, which takes root. Here it shares the service's cores, which its
 * clients do not: waiting for a core would count as the service's latency.
 */
export const isProberRealTime = spawnSync('chrt', [...REAL_TIME.slice(1), 'true']).status === 0

/** Starts the process that sends. */
export function startProber(): Prober {
  const command = [...(isProberRealTime ? REAL_TIME : []), process.execPath, import.meta.filename]
  const child: ChildProcess = spawn(command[0] ?? '', command.slice(1), {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  return {
    probe(order) {
      child.send(order)
      return nextMessage<ProbeResult>(child, order.durationMs + 2 * ANSWER_TIMEOUT_MS)
    },
    [Symbol.asyncDispose]: () => end(child),
  }
}

if (!isMainThread && workerData?.beats) keepTime(workerData.beats)
else if (import.meta.main) serve()

function serve() {
  try {
    setPriority(constants.priority.PRIORITY_HIGHEST)
  } catch {
    // Not root: the figures are somewhat worse than the service is, and `lagsMs` shows by how much.
  }
  process.on('message', async (order: ProbeOrder) => process.send?.(await probe(order)))
  process.on('disconnect', () => process.exit())
}

async function probe({
  url,
  perSecond,
  startInMs,
  durationMs,
  connections = CONNECTIONS,
}: ProbeOrder): Promise<ProbeResult> {
  const { origin, pathname, search } = new URL(url)
  // Not node:http, which takes half as much processor time again.
  const pool = new Pool(origin, { connections })
  const result: ProbeResult = { answers: [], latenciesMs: [], failed: 0, lagsMs: [] }
  const pending: Promise<void>[] = []
  const beats = {
    startAtMs: nowMs() + startInMs,
    intervalMs: 1_000 / perSecond,
    count: (durationMs * perSecond) / 1_000,
  }
  const send = async (dueMs: number) => {
    result.lagsMs.push(nowMs() - dueMs)
    const status = await ask(pool, pathname + search)
    const answeredMs = nowMs()
    result.answers.push({ status, ms: answeredMs - dueMs, atMs: answeredMs - beats.startAtMs })
    result.latenciesMs.push(answeredMs - dueMs)
    if (status !== 200) result.failed++
  }
  const timer = new Worker(import.meta.filename, { workerData: { beats } })
  timer.on('message', (beat: number) =>
    pending.push(send(beats.startAtMs + beat * beats.intervalMs)),
  )
  await once(timer, 'exit')
  const giveUp = setTimeout(() => pool.destroy(), ANSWER_TIMEOUT_MS)
  await Promise.all(pending)
  clearTimeout(giveUp)
  await pool.destroy()
  return result
}

/** Resolves with the status once all of the answer has arrived, or with 0 if it does not. */
function ask(pool: Pool, path: string): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>()
  let status = 0
  pool.dispatch(
    { method: 'GET', path },
    {
      // Undici insists on the two that do nothing.
      onRequestStart() {},
      onResponseData() {},
      onResponseStart(_controller, code) {
        status = code
      },
      onResponseEnd: () => resolve(status),
      onResponseError: () => resolve(0),
    },
  )
  return promise
}

interface Beats {
  startAtMs: number
  intervalMs: number
  count: number
}

/**
 * Node's timers tick in whole milliseconds, as much as the answers take that are timed with them; a
 * thread that waits on a lock wakes within 0.1 ms.
 */
function keepTime({ startAtMs, intervalMs, count }: Beats) {
  const never = new Int32Array(new SharedArrayBuffer(4))
  for (let beat = 0; beat < count; beat++) {
    const waitMs = startAtMs + beat * intervalMs - nowMs()
    if (waitMs > 0) Atomics.wait(never, 0, 0, waitMs)
    parentPort?.postMessage(beat)
  }
}

/** Milliseconds on the clock that all threads of this machine share. */
function nowMs() {
  return Number(process.hrtime.bigint()) / 1e6
}
