/** Once that something held the event loop, and where. */
export interface Incident {
  /** When the loop was held, in milliseconds since the epoch. */
  at: number
  /** For how long, in milliseconds. */
  heldMs: number
  /** The function that ran, and where it stands. */
  function: string
  file: string
  line: number
  /** The request in whose handler that was, and its route's pattern, where that is known. */
  requestId?: string
  route?: string
}
