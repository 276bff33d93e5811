import type { MiddlewareHandler } from 'hono'
import { bodyLimit as countingBodyLimit } from 'hono/body-limit'
import { AppError } from '../errors.ts'
import type { Env } from './env.ts'

/**
 * Refuses bodies over `maxBytes` with 413: at once where their length is declared, else as soon as the bytes that have
 * arrived exceed it. Requests without a body pass untouched, which Hono's own middleware would not leave them.
 */
export function bodyLimit(maxBytes: number): MiddlewareHandler<Env> {
  const tooLarge = () => {
    throw new AppError('too_large', `The body is larger than ${maxBytes} bytes`)
  }
  const countingLimit = countingBodyLimit({ maxSize: maxBytes, onError: tooLarge })
  return (c, next) => {
    if (c.req.header('transfer-encoding')) return countingLimit(c, next)
    if (Number(c.req.header('content-length') ?? 0) > maxBytes) tooLarge()
    return next()
  }
}
