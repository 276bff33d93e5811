import type { MiddlewareHandler } from 'hono'
import { AppError } from '../errors.ts'
import type { Env } from './env.ts'

/**
 * Gives the request its one signal, `c.var.signal`: it aborts when the client goes away or `timeoutMs` have passed, and
 * ends the SQL statement or the task that the request is waiting for.
 */
export const deadline =
  (timeoutMs: number): MiddlewareHandler<Env> =>
  async (c, next) => {
    const controller = new AbortController()
    const onTimeout = () => controller.abort(new AppError('deadline_exceeded', `No answer within ${timeoutMs} ms`))
    const onGone = () => controller.abort(new AppError('cancelled', 'The client closed the connection'))
    const timer = setTimeout(onTimeout, timeoutMs)
    c.req.raw.signal.addEventListener('abort', onGone, { once: true })
    c.set('signal', controller.signal)
    try {
      await (c.req.method === 'GET' ? next() : Promise.race([next(), rejectionOf(controller.signal)]))
    } finally {
      clearTimeout(timer)
    }
  }

/** A body that does not arrive is the one thing waited for that no signal reaches: its request is answered without it. */
const rejectionOf = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
