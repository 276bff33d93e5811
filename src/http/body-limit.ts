import type { MiddlewareHandler } from 'hono'
import { bodyLimit as countingBodyLimit } from 'hono/body-limit'
import { AppError } from '../errors.ts'
import { type Env, getContext } from './context.ts'

/**
 * Refuses bodies over `maxBytes` with 413: at once where their length is declared, else as soon as
 * the bytes that have arrived exceed it. A body that does not arrive is not waited for beyond the
 * deadline. Requests without a body pass untouched, which Hono's own middleware would not leave
 * them.
 *
 * @param uploads paths whose handlers take larger bodies, by `receiveUpload`, which has limits of
 * its own.
 */
export function bodyLimit(maxBytes: number, uploads: readonly string[]): MiddlewareHandler<Env> {
  const tooLarge = () => {
    throw new AppError('too_large', `The body is larger than ${maxBytes} bytes`)
  }
  const countingLimit = countingBodyLimit({ maxSize: maxBytes, onError: tooLarge })
  return (c, next) => {
    if (c.req.method === 'GET' || c.req.method === 'HEAD') return next()
    const chunked = c.req.header('transfer-encoding')
    const length = Number(c.req.header('content-length') ?? 0)
    if ((!chunked && length === 0) || uploads.includes(c.req.path)) return next()
    if (length > maxBytes) tooLarge()
    c.env?.outgoing?.inviteBody()
    return Promise.race([chunked ? countingLimit(c, next) : next(), abortOf(getContext(c).signal)])
  }
}

/**
 * A body is the one thing that a handler awaits and no signal reaches: its request is answered
 * without it.
 */
const abortOf = (signal: AbortSignal) =>
  new Promise<never>((_, reject) =>
    signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
  )
