import type { HttpBindings } from '@hono/node-server'
import type { Context } from 'hono'

/** What every handler finds in its context. */
export interface Env {
  /** Node's own request and response; absent where a test calls `app.request()` without a socket. */
  Bindings: Partial<HttpBindings>
  Variables: {
    requestId: string
    /** Aborts when the client goes away or the request's time is up; give it to everything that is awaited. */
    signal: AbortSignal
  }
}

export type AppContext = Context<Env>
