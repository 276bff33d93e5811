import type { AppContext } from './env.ts'
import { liftDeadline, signalOf } from './exchange.ts'

const HEARTBEAT_MS = 15_000
/** A comment: proxies see that the stream lives, clients see nothing. */
const HEARTBEAT = ':\n\n'

/** What a subscription sends to its client. */
export interface EventSink {
  /** News that the next one outdates: while the client does not read, only the last of them waits. */
  latest(name: string, data: unknown): void
  /** The last event: the stream ends after it. */
  last(name: string, data: unknown): void
}

/**
 * Answers with Server-Sent Events, until the last of them, or until the client leaves or the service stops. It has no
 * deadline; comments now and then keep proxies from thinking it dead.
 *
 * @param subscribe begins to send, and gives the function that ends it.
 */
export function eventStream(c: AppContext, stopping: AbortSignal, subscribe: (sink: EventSink) => () => void): Response {
  liftDeadline(c)
  const signal = AbortSignal.any([signalOf(c), stopping])
  const ended = new AbortController()
  let waiting: string | undefined
  const stream = new ReadableStream<string>({
    start(controller) {
      const isRead = () => (controller.desiredSize ?? 0) > 0
      const end = () => {
        if (ended.signal.aborted) return
        ended.abort()
        controller.close()
      }
      const latest = (name: string, data: unknown) => {
        if (isRead()) controller.enqueue(frameOf(name, data))
        else waiting = frameOf(name, data)
      }
      const last = (name: string, data: unknown) => {
        controller.enqueue((waiting ?? '') + frameOf(name, data))
        end()
      }
      controller.enqueue(HEARTBEAT)
      const timer = setInterval(() => isRead() && controller.enqueue(HEARTBEAT), HEARTBEAT_MS).unref()
      const unsubscribe = subscribe({ latest, last })
      const clean = () => {
        clearInterval(timer)
        unsubscribe()
      }
      if (ended.signal.aborted) return clean()
      ended.signal.addEventListener('abort', clean)
      signal.addEventListener('abort', end, { signal: ended.signal })
      if (signal.aborted) end()
    },
    pull(controller) {
      if (waiting) controller.enqueue(waiting)
      waiting = undefined
    },
    cancel: () => ended.abort(),
  })
  return new Response(stream.pipeThrough(new TextEncoderStream()), {
    headers: { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache, no-transform', 'X-Accel-Buffering': 'no' },
  })
}

const frameOf = (name: string, data: unknown) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
