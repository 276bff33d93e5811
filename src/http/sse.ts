import type { TypedResponse } from 'hono'
import type { Subject } from '../roles.ts'
import { type AppContext, getContext } from './context.ts'

const HEARTBEAT_MS = 15_000
/** A client without room for more is disconnected. */
const MAX_UNREAD_BEATS = 4
/** A comment, which keeps proxies from closing the stream. */
const HEARTBEAT = ':\n\n'

/** Sent with the last event only: a client with a `Last-Event-ID` has seen the end. */
const LAST_ID = 'last'

const HEADERS = {
  'Content-Type': 'text/event-stream',
  'Cache-Control': 'no-cache, no-transform',
  'X-Accel-Buffering': 'no',
}

/** Sends to a client until the stream has ended. */
export interface EventSink {
  /** Sends an event; a slow client gets only the newest. */
  latest(name: string, data: unknown): void
  /** Ends the stream after this event. */
  last(name: string, data: unknown): void
  /** Ends the stream without a last event: an `EventSource` reconnects. */
  end(): void
}

interface StreamDeps {
  stopping: AbortSignal
  realtime: { onSignOut(subject: Subject | undefined, end: () => void): () => void }
}

/**
 * Streams Server-Sent Events, without a deadline, until the client leaves, its session or API key
 * ends, or the service stops.
 *
 * @param subscribe starts sending; returns the function that unsubscribes.
 */
export function eventStream(
  c: AppContext,
  { stopping, realtime }: StreamDeps,
  subscribe: (sink: EventSink) => () => void,
  heartbeatMs = HEARTBEAT_MS,
): Response & TypedResponse<ReadableStream | null, 200, 'body'> {
  if (c.req.method === 'HEAD') return c.body(null, 200, HEADERS)
  const context = getContext(c)
  context.clearDeadline()
  const signal = AbortSignal.any([context.signal, stopping])
  const ended = new AbortController()
  let pending = ''
  let unreadBeats = 0
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
        if (isRead()) controller.enqueue(encodeEvent(name, data))
        else pending = encodeEvent(name, data)
      }
      const last = (name: string, data: unknown) => {
        if (ended.signal.aborted) return
        controller.enqueue(`${pending}id: ${LAST_ID}\n${encodeEvent(name, data)}`)
        end()
      }
      const beat = () => {
        unreadBeats = isRead() ? 0 : unreadBeats + 1
        if (unreadBeats === 0) controller.enqueue(HEARTBEAT)
        else if (unreadBeats === MAX_UNREAD_BEATS) c.env?.outgoing?.destroy()
      }
      beat()
      const timer = setInterval(beat, heartbeatMs).unref()
      const unsubscribe = subscribe({ latest, last, end })
      const forget = realtime.onSignOut(context.subject, end)
      const clean = () => {
        clearInterval(timer)
        forget()
        unsubscribe()
      }
      if (ended.signal.aborted) return clean()
      ended.signal.addEventListener('abort', clean)
      signal.addEventListener('abort', end, { signal: ended.signal })
      if (signal.aborted) end()
    },
    pull(controller) {
      if (pending) controller.enqueue(pending)
      pending = ''
    },
    cancel: () => ended.abort(),
  })
  return c.body(stream.pipeThrough(new TextEncoderStream()), 200, HEADERS)
}

/** Whether the client has seen the last event: 204 stops its `EventSource`. */
export const hasSeenLast = ({ req }: AppContext): boolean => Boolean(req.header('last-event-id'))

const encodeEvent = (name: string, data: unknown) =>
  `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
