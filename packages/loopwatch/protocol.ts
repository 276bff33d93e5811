import type { Beats } from './heartbeat.ts'
import type { Incident } from './incident.ts'

/** What the watchdog's thread is started with. */
export interface ThreadData {
  beats: Beats
  periodMs: number
  thresholdMs: number
  lookName: string
  tireless: boolean
  server: ServerOptions | undefined
}

/** Where the watchdog's thread answers probes and scrapes. */
export interface ServerOptions {
  host: string
  /** 0 is any that is free. */
  port: number
  /** Held for longer than that, the process counts as dead. */
  maxHeldMs: number
}

/** What only the event loop's thread knows. */
export interface Answers {
  /** Without its cause, which may be anything. */
  readiness: { ready: true } | { ready: false; reason: string }
  /** The page for Prometheus. */
  metrics: string
}

export type Subject = keyof Answers

/**
 * What the event loop tells the thread: an answer, or that it wants all incidents so far to be
 * told.
 */
export type MainMessage = AnswerMessage | { kind: 'settle'; id: number }

export type AnswerMessage = {
  [Key in Subject]: { kind: 'answer'; id: number; subject: Key; answer: Answers[Key] }
}[Subject]

/** What the thread tells the event loop. */
export type ThreadMessage =
  | { kind: 'open'; url: string | undefined }
  | { kind: 'failed'; error: { code: string; message: string } }
  | { kind: 'incident'; incident: Incident }
  | { kind: 'ask'; id: number; subject: Subject }
  | { kind: 'settled'; id: number }
