import type { Log } from '../../src/log.ts'

/** What held the event loop: a place in the code, and the request that it was busy with. */
export interface Culprit {
  /**
   * The function's name; `(anonymous)` for one without, `(unknown)` where the stack told nothing.
   */
  function: string
  /**
   * Relative to the project where inside it, a URL such as `node:fs` or an absolute path elsewhere;
   * empty if unknown.
   */
  file: string
  /** From 1; 0 if unknown. */
  line: number
  /** Absent where no request was in progress, or nothing on the stack belonged to one. */
  requestId?: string
  /** The pattern that the request matched: `/v1/products/:id`. */
  route?: string
}

/** One time that the event loop was held. */
export interface Incident extends Culprit {
  /** When it began, in milliseconds since the epoch. */
  at: number
  /**
   * How long it was held in the end, in milliseconds, to within a heartbeat and rather too little
   * than too much.
   */
  heldMs: number
}

/** Nobody looked, or it was over when they did. */
export const UNKNOWN: Culprit = { function: '(unknown)', file: '', line: 0 }

/** `countPrimesIn (src/features/primes/compute.ts:15)`, for people. */
export const placeOf = ({ function: name, file, line }: Culprit) =>
  file ? `${name} (${file}:${line})` : name

/** One line for each, with all that is known. */
export const logIncident = (log: Log, incident: Incident) =>
  log.warn(incident, `The event loop was held for ${incident.heldMs} ms by ${placeOf(incident)}`)
