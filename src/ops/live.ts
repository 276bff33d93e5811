import { createRouter } from '../http/router.ts'
import { LiveRequests, opsRequests, requestRoutes } from './live-requests.ts'
import { LiveSamples, opsSample, sampleRoutes } from './live-samples.ts'
import { type EndedTask, LiveSpans, opsSpans, spanRoutes } from './live-spans.ts'
import { processRoutes } from './processes.ts'
import { profileRoutes } from './profiles.ts'

type StartParts = Omit<
  Parameters<LiveSamples['start']>[0] & Parameters<LiveSpans['start']>[0],
  'processId'
>

type RouteParts = Parameters<typeof profileRoutes>[0] &
  Parameters<typeof processRoutes>[0] & {
    live: Live
    database: { serverVersion: string }
  }

/** What the live page shows of the process. To add a part, change only this file. */
export class Live {
  readonly processId: string
  readonly samples = new LiveSamples()
  readonly spans = new LiveSpans()
  readonly requests = new LiveRequests()

  constructor(processId: string) {
    this.processId = processId
  }

  observeTask(ended: EndedTask): void {
    this.samples.observeTask(ended)
    this.spans.observe(ended)
    this.requests.observeTask(ended)
  }

  start(options: StartParts): () => void {
    const parts = { ...options, processId: this.processId }
    const stops = [this.samples.start(parts), this.spans.start(parts), this.requests.start(parts)]
    return () => {
      for (const stop of stops) stop()
    }
  }
}

export const opsEvents = [opsSample, opsSpans, opsRequests] as const

/** All of `/v1/ops`. */
export const opsRoutes = ({ live, ...parts }: RouteParts) =>
  createRouter()
    .route('/', sampleRoutes(live.samples, live.processId, parts.database.serverVersion))
    .route('/', spanRoutes(live.spans, live.processId))
    .route('/', processRoutes(parts))
    .route('/', profileRoutes(parts))
    .route('/', requestRoutes(live.requests, live.processId))
