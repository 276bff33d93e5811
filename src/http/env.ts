import type { IncomingMessage } from 'node:http'
import type { Context } from 'hono'
import type { Exchange } from './exchange.ts'
import type { AppResponse } from './response.ts'

/** What every handler finds in its context. */
export interface Env {
  /**
   * Node's own request and response; absent where a test calls `app.request()` without a socket.
   */
  Bindings: { incoming?: IncomingMessage; outgoing?: AppResponse }
  /** Read it through `signalOf(c)`, `timeLeftMs(c)` and `requestIdOf(c)`. */
  Variables: { exchange: Exchange }
}

export type AppContext = Context<Env>
