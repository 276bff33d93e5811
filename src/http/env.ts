import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Context } from 'hono'
import type { AppResponse } from './response.ts'

/** What every handler finds in its context. */
export interface Env {
  /** Node's own request and response; absent where a test calls `app.request()` without a socket. */
  Bindings: { incoming?: IncomingMessage; outgoing?: AppResponse }
  Variables: {
    requestId: string
    /** Aborts when the client goes away or the request's time is up; give it to everything that is awaited. */
    signal: AbortSignal
  }
}

export type AppContext = Context<Env>

/** The id that the request goes by in answers and logs. */
export const requestIdOf = (c: AppContext): string => c.env?.outgoing?.requestId ?? randomUUID()
