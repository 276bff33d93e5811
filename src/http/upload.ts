import { performance } from 'node:perf_hooks'
import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import { AppError } from '../errors.ts'
import { type AppContext, getContext } from './context.ts'

/**
 * So much of an upload must arrive in so long, or it is given up: neither a stalled client nor one
 * that dribbles holds on.
 */
const PROGRESS_BYTES = 64 * 1024
const PROGRESS_MS = 30_000

/**
 * A request's body as it arrives, for a route that takes large ones (`uploads` in
 * its feature): the deadline stands still meanwhile, and begins anew when all of it is there.
 * Who stops reading early can still answer.
 *
 * @throws AppError `too_large`; `request_timeout` when too little arrives; `cancelled` when the
 * client leaves.
 */
export async function* receiveUpload(
  c: AppContext,
  maxBytes: number,
  progressMs = PROGRESS_MS,
): AsyncGenerator<Uint8Array> {
  if ((declaredBytes(c) ?? 0) > maxBytes) throw tooLarge(maxBytes)
  getContext(c).clearDeadline()
  c.env?.outgoing?.liftBodyLimit()
  c.env?.outgoing?.inviteBody()
  const body = bodyOf(c)
  const chunks: AsyncIterator<Uint8Array> = body.iterator({ destroyOnReturn: false })
  let [received, counted, dueAt] = [0, 0, performance.now() + progressMs]
  for (;;) {
    const { done, value } = await inTime(chunks.next(), dueAt - performance.now())
    if (done) break
    received += value.byteLength
    if (received > maxBytes) throw tooLarge(maxBytes)
    if (received - counted >= PROGRESS_BYTES)
      [counted, dueAt] = [received, performance.now() + progressMs]
    yield value
  }
  getContext(c).restartDeadline()
}

/** The size of a request's body, where its client says it. */
export function declaredBytes({ req }: AppContext): number | undefined {
  const length = req.header('content-length')
  return length === undefined ? undefined : Number(length)
}

/**
 * Node's own stream, where there is one: a Web stream around it costs the event loop as much again.
 */
function bodyOf(c: AppContext): Readable {
  if (c.env?.incoming) return c.env.incoming
  return c.req.raw.body ? Readable.fromWeb(c.req.raw.body as ReadableStream) : Readable.from([])
}

function inTime<T>(next: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new AppError('request_timeout', 'Upload stalled')), ms)
    next
      .then(resolve, (cause) => reject(new AppError('cancelled', 'Upload aborted', { cause })))
      .finally(() => clearTimeout(timer))
  })
}

const tooLarge = (maxBytes: number) =>
  new AppError('too_large', `The upload is larger than ${maxBytes} bytes`)
