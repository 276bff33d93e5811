import { Session } from 'node:inspector/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads'

const SAMPLING_INTERVAL_US = 1_000
const EXITED_THREAD_ID = -1
/** Native calls cannot be interrupted. */
const ANSWER_TIMEOUT_MS = 10_000

export interface ProfileOptions {
  /** A worker's name; the main thread if absent. */
  thread?: string | undefined
  durationMs: number
  /** Ends the recording early. */
  signal: AbortSignal
}

export class ProfileError extends Error {
  override readonly name = 'ProfileError'
  readonly code: 'conflict' | 'unavailable'

  constructor(code: ProfileError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** For `detector.ts`. A message to the port ends the recording. */
export interface ProfileRequest extends Omit<ProfileOptions, 'signal'> {
  kind: 'profile'
  port: MessagePort
}

type ProfileAnswer = { profile: Uint8Array<ArrayBuffer> } | { error: string }

export async function requestProfile(
  watchdog: Worker,
  { thread, durationMs, signal }: ProfileOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const { port1, port2 } = new MessageChannel()
  const request: ProfileRequest = { kind: 'profile', thread, durationMs, port: port2 }
  watchdog.postMessage(request, [port2])
  const stop = () => port1.postMessage('stop')
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop)
  const { promise, resolve } = Promise.withResolvers<ProfileAnswer>()
  const onEnd = () => resolve({ error: 'The watchdog has ended' })
  if (watchdog.threadId === EXITED_THREAD_ID) onEnd()
  port1.once('message', resolve)
  port1.once('close', onEnd)
  const answer = await promise
  signal.removeEventListener('abort', stop)
  port1.close()
  if ('error' in answer) throw new ProfileError('unavailable', answer.error)
  return answer.profile
}

/** For the watchdog's thread, which can interrupt others. */
export async function recordProfile({ thread, durationMs, port }: ProfileRequest): Promise<void> {
  const ending = new AbortController()
  port.once('message', () => ending.abort())
  const session = new Session()
  session.connectToMainThread()
  try {
    const send =
      thread === undefined
        ? (method: string, params?: object) => session.post(method, params)
        : await connectToWorker(session, thread, () => ending.abort())
    const ask = (method: string, params?: object) => answerInTime(send(method, params))
    await ask('Profiler.enable')
    await ask('Profiler.setSamplingInterval', { interval: SAMPLING_INTERVAL_US })
    await ask('Profiler.start')
    await sleep(durationMs, undefined, { signal: ending.signal }).catch(() => {})
    const { profile } = (await ask('Profiler.stop')) as { profile: object }
    // By which the live page shortens URLs.
    const folder = pathToFileURL(`${process.cwd()}/`).href
    const bytes = new TextEncoder().encode(JSON.stringify({ ...profile, folder }))
    port.postMessage({ profile: bytes } satisfies ProfileAnswer, [bytes.buffer])
  } catch (error) {
    port.postMessage({ error: (error as Error).message } satisfies ProfileAnswer)
  } finally {
    session.disconnect()
  }
}

/** The main thread passes messages on even while it is blocked. */
async function connectToWorker(session: Session, name: string, onExit: () => void) {
  const asked = new Map<number, PromiseWithResolvers<unknown>>()
  let sessionId: string | undefined
  let hasExited = false
  session.on('NodeWorker.attachedToWorker', ({ params }) => {
    if (params.workerInfo.title.endsWith(`] ${name}`)) sessionId = params.sessionId
  })
  session.on('NodeWorker.detachedFromWorker', ({ params }) => {
    if (params.sessionId !== sessionId) return
    hasExited = true
    for (const { reject } of asked.values()) reject(exited(name))
    onExit()
  })
  session.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
    const { id, result, error } = JSON.parse(params.message)
    if (error) asked.get(id)?.reject(new Error(error.message))
    else asked.get(id)?.resolve(result)
    asked.delete(id)
  })
  await answerInTime(session.post('NodeWorker.enable', { waitForDebuggerOnStart: false }))
  if (sessionId === undefined) throw new Error(`There is no thread ${name}`)
  let id = 0
  return async (method: string, params?: object): Promise<unknown> => {
    if (hasExited || sessionId === undefined) throw exited(name)
    const answer = Promise.withResolvers<unknown>()
    asked.set(++id, answer)
    const message = JSON.stringify({ id, method, params })
    await session.post('NodeWorker.sendMessageToWorker', { sessionId, message })
    return answer.promise
  }
}

const exited = (name: string) => new Error(`The thread ${name} exited while it was profiled`)

async function answerInTime<Answer>(answer: Promise<Answer>): Promise<Answer> {
  const timer = new AbortController()
  const late = sleep(ANSWER_TIMEOUT_MS, undefined, { signal: timer.signal }).then(() => {
    const seconds = ANSWER_TIMEOUT_MS / 1_000
    throw new Error(`Cannot profile: a native call has kept the thread busy for ${seconds} s`)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    timer.abort()
  }
}
