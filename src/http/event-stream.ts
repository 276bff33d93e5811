import type { TypedResponse } from 'hono'
import { type AppContext, getContext } from './context.ts'

const HEARTBEAT_MS = 15_000
/** A comment: proxies see that the stream lives, clients see nothing. */
const HEARTBEAT = ':\n\n'

/**
 * The id of the last event. No other event has one, so a client that sends it as `Last-Event-ID`
 * has seen the last event.
 */
const LAST_ID = 'last'

const HEADERS = {
  'Content-Type': 'text/event-stream',
  'Cache-Control': 'no-cache, no-transform',
  'X-Accel-Buffering': 'no',
}

/** What a subscription sends to its client. After the end of the stream it sends nothing. */
export interface EventSink {
  /**
   * An event that the next one supersedes: while the client does not read, only the newest of them
   * waits.
   */
  latest(name: string, data: unknown): void
  /** The last event: the stream ends after it. */
  last(name: string, data: unknown): void
  /** Ends the stream without a last event: an `EventSource` connects again. */
  end(): void
}

/**
 * Answers with Server-Sent Events, until the last of them, or until the client leaves or the
 * service stops. It has no deadline; comments now and then keep proxies from thinking it dead. HEAD
 * gets the headers, and subscribes to nothing.
 *
 * @param subscribe begins to send, and gives the function that ends it.
 */
export function eventStream(
  c: AppContext,
  stopping: AbortSignal,
  subscribe: (sink: EventSink) => () => void,
): Response & TypedResponse<ReadableStream | null, 200, 'body'> {
  if (c.req.method === 'HEAD') return c.body(null, 200, HEADERS)
  getContext(c).clearDeadline()
  const signal = AbortSignal.any([getContext(c).signal, stopping])
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
        if (ended.signal.aborted) return
        if (isRead()) controller.enqueue(frameOf(name, data))
        else waiting = frameOf(name, data)
      }
      const last = (name: string, data: unknown) => {
        if (ended.signal.aborted) return
        controller.enqueue(`${waiting ?? ''}id: ${LAST_ID}\n${frameOf(name, data)}`)
        waiting = undefined
        end()
      }
      controller.enqueue(HEARTBEAT)
      const timer = setInterval(
        () => isRead() && controller.enqueue(HEARTBEAT),
        HEARTBEAT_MS,
      ).unref()
      const unsubscribe = subscribe({ latest, last, end })
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
  return c.body(stream.pipeThrough(new TextEncoderStream()), 200, HEADERS)
}

/**
 * Whether the client has seen the last event. An `EventSource` connects again when a stream ends:
 * only an answer without events (204) stops it.
 */
export const hasSeenLast = ({ req }: AppContext): boolean => Boolean(req.header('last-event-id'))

const frameOf = (name: string, data: unknown) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
