import type { Mode } from './protocol.ts'

/** What another process is asked to do; a chunk's input is an array. */
export interface RemoteWork {
  task: string
  mode: Mode
  input: unknown
  requestId: string | undefined
  trace: string | undefined
}

export type RemoteAnswer =
  /** Of a chunk, `output` is an array; `items` may be fewer than it had. */
  | { outcome: 'done'; output: unknown; items: number; runMs: number }
  /** The task threw; `item` is the index of the input. */
  | { outcome: 'failed'; error: unknown; item: number | undefined }
  /** The work must be done here. */
  | { outcome: 'lost' }
  /** About so many inputs would fit. */
  | { outcome: 'too-large'; fits: number }

export interface RemoteOptions {
  signal: AbortSignal
  onProgress?: ((fraction: number) => void) | undefined
}

/** Other processes that do a pool's work. */
export interface Remote {
  /** How many calls may be sent now. */
  places(task: string): number
  /** Registers the call before it returns. Whatever it resolves with once aborted is ignored. */
  run(work: RemoteWork, options: RemoteOptions): Promise<RemoteAnswer>
}
