import { type MessagePort, receiveMessageOnPort, type Transferable } from 'node:worker_threads'

/** After so many messages the event loop has a turn, whatever else has arrived. */
const MAX_BURST = 1_000

interface Receiver<Message> {
  onMessage: (message: Message) => void
  /** A message cannot be read. */
  onUnreadable: (error: Error) => void
  /** Asked when all was received; true when it is worth looking again at once. */
  awaitNext?: () => boolean
}

/**
 * Receives what comes by a port in bursts: the first message by an event, which costs more than a
 * short task does, and with it whatever else has arrived by then.
 *
 * @returns receives what is left, once the other end is gone.
 */
export function receiveMessages<Message>(
  port: MessagePort,
  { onMessage, onUnreadable, awaitNext = () => false }: Receiver<Message>,
): () => void {
  let isTurnDue = false
  let isClosed = false
  const receive = (most: number) => {
    // Node 26 crashes when it is asked while the port closes, instead of saying that there is
    // nothing.
    if (isClosed) return
    try {
      for (let received = 0; received < most; received++) {
        const next = receiveMessageOnPort(port)
        if (next) onMessage(next.message)
        else if (!awaitNext()) return
      }
    } catch (error) {
      return onUnreadable(error as Error)
    }
    // Node itself takes up to a thousand messages in a turn of the event loop: not each of them may
    // begin a burst.
    isTurnDue = true
    setImmediate(() => {
      isTurnDue = false
    })
  }
  port.on('close', () => {
    isClosed = true
  })
  port.on('messageerror', onUnreadable)
  port.on('message', (first) => {
    onMessage(first)
    if (!isTurnDue) receive(MAX_BURST)
  })
  return () => receive(Number.POSITIVE_INFINITY)
}

/** @throws DataCloneError when the message cannot be cloned. */
export function postMessage(
  port: MessagePort,
  message: unknown,
  transfer: readonly Transferable[],
): void {
  // An empty list costs as much as all the rest: Node iterates over it from C++.
  if (transfer.length === 0) port.postMessage(message)
  else port.postMessage(message, [...transfer])
}
