import { z } from '@hono/zod-openapi'
import { AppError } from '../errors.ts'
import { createRouter, json } from './router.ts'

const CHECK_TIMEOUT_MS = 1_000

type ReadinessAnswer = { ready: true } | { ready: false; reason: string; cause?: unknown }

/** Decides whether the service should get traffic. */
export class Readiness {
  readonly #stopping: AbortSignal
  #check: ((signal: AbortSignal) => Promise<void>) | undefined
  #checking: Promise<ReadinessAnswer> | undefined

  constructor(stopping: AbortSignal) {
    this.#stopping = stopping
  }

  begin(check: (signal: AbortSignal) => Promise<void>): void {
    this.#check = check
  }

  /** Concurrent calls share one check. */
  find = async (): Promise<ReadinessAnswer> => {
    if (this.#stopping.aborted) return { ready: false, reason: 'The service is stopping' }
    if (!this.#check) return { ready: false, reason: 'The service is starting' }
    this.#checking ??= this.#check(AbortSignal.timeout(CHECK_TIMEOUT_MS))
      .then(() => ({ ready: true }) as const, toAnswer)
      .finally(() => {
        this.#checking = undefined
      })
    return this.#checking
  }
}

const toAnswer = (cause: unknown): ReadinessAnswer =>
  cause instanceof AppError
    ? { ready: false, reason: cause.message, cause: cause.cause }
    : { ready: false, reason: 'The database does not answer', cause }

export function healthRoutes(readiness: Readiness) {
  const router = createRouter()
  const Health = z.object({ status: z.literal('ok') }).openapi('Health')
  const ok = { status: 'ok' } as const

  router.openapi({
    method: 'get',
    path: '/live',
    operationId: 'isLive',
    access: 'public',
    summary: 'Liveness probe: restart the process when it fails',
    responses: { 200: json(Health, 'Alive') },
    handler: (c) => c.json(ok, 200),
  })

  router.openapi({
    method: 'get',
    path: '/ready',
    operationId: 'isReady',
    access: 'public',
    summary: 'Readiness probe: fails without the database and during shutdown',
    responses: { 200: json(Health, 'Ready'), 503: { description: 'Not ready' } },
    handler: async (c) => {
      const answer = await readiness.find()
      if (!answer.ready) throw new AppError('unavailable', answer.reason, { cause: answer.cause })
      return c.json(ok, 200)
    },
  })

  return router
}
