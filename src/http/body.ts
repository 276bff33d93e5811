import { performance } from 'node:perf_hooks'
import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import type { MiddlewareHandler } from 'hono'
import { bodyLimit as countingBodyLimit } from 'hono/body-limit'
import { AppError } from '../errors.ts'
import { type AppContext, type Env, getContext } from './context.ts'

/** An upload stalls below this rate. */
const PROGRESS_BYTES = 64 * 1024
const PROGRESS_MS = 30_000

/**
 * Rejects larger bodies. Only chunked ones pass through Hono's middleware, which creates a stream.
 *
 * @param uploads paths whose handlers call `receiveUpload`.
 */
export function bodyLimit(maxBytes: number, uploads: readonly string[]): MiddlewareHandler<Env> {
  const reject = () => {
    throw tooLarge('body', maxBytes)
  }
  const countingLimit = countingBodyLimit({ maxSize: maxBytes, onError: reject })
  return (c, next) => {
    if (c.req.method === 'GET' || c.req.method === 'HEAD') return next()
    const chunked = c.req.header('transfer-encoding')
    const length = declaredBytes(c) ?? 0
    if ((!chunked && length === 0) || uploads.includes(c.req.path)) return next()
    if (length > maxBytes) reject()
    c.env?.outgoing?.inviteBody()
    // Reading a body takes no signal.
    const { signal } = getContext(c)
    const aborted = new Promise<never>((_, rejectAborted) =>
      signal.addEventListener('abort', () => rejectAborted(signal.reason), { once: true }),
    )
    return Promise.race([chunked ? countingLimit(c, next) : next(), aborted])
  }
}

/**
 * Yields the body of an upload, without a deadline. A reader may stop early.
 *
 * @throws AppError `too_large`, `request_timeout` for a stalled or `cancelled` for an aborted
 * upload.
 */
export async function* receiveUpload(
  c: AppContext,
  maxBytes: number,
  progressMs = PROGRESS_MS,
): AsyncGenerator<Uint8Array> {
  if ((declaredBytes(c) ?? 0) > maxBytes) throw tooLarge('upload', maxBytes)
  getContext(c).clearDeadline()
  c.env?.outgoing?.clearBodyTimeout()
  c.env?.outgoing?.inviteBody()
  const chunks: AsyncIterator<Uint8Array> = openBody(c).iterator({ destroyOnReturn: false })
  let [received, counted, dueAt] = [0, 0, performance.now() + progressMs]
  try {
    for (;;) {
      const { done, value } = await before(dueAt, chunks.next())
      if (done) break
      received += value.byteLength
      if (received > maxBytes) throw tooLarge('upload', maxBytes)
      if (received - counted >= PROGRESS_BYTES)
        [counted, dueAt] = [received, performance.now() + progressMs]
      yield value
    }
  } finally {
    getContext(c).restartDeadline()
  }
}

export function declaredBytes({ req }: AppContext): number | undefined {
  const length = req.header('content-length')
  return length === undefined ? undefined : Number(length)
}

/** Node's own stream if there is one, at half the cost of a Web stream. */
function openBody(c: AppContext): Readable {
  if (c.env?.incoming) return c.env.incoming
  return c.req.raw.body ? Readable.fromWeb(c.req.raw.body as ReadableStream) : Readable.from([])
}

function before<T>(dueAt: number, next: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const stall = () => reject(new AppError('request_timeout', 'Upload stalled'))
    const timer = setTimeout(stall, dueAt - performance.now())
    next
      .then(resolve, (cause) => reject(new AppError('cancelled', 'Upload aborted', { cause })))
      .finally(() => clearTimeout(timer))
  })
}

const tooLarge = (what: 'body' | 'upload', maxBytes: number) =>
  new AppError('too_large', `The ${what} is larger than ${maxBytes} bytes`)
