import { createRouter } from '../http/router.ts'
import { LiveRequests, opsRequests, requestRoutes } from './live-requests.ts'
import { LiveSamples, opsSample, sampleRoutes } from './live-samples.ts'
import { type EndedTask, LiveSpans, opsSpans, spanRoutes } from './live-spans.ts'
import { profileRoutes } from './profiles.ts'

type StartParts = Parameters<LiveSamples['start']>[0] & Parameters<LiveSpans['start']>[0]

type RouteParts = Parameters<typeof profileRoutes>[0] & {
  live: Live
  database: { serverVersion: string }
}

/** What the live page shows of the process. To add a part, change only this file. */
export class Live {
  readonly samples = new LiveSamples()
  readonly spans = new LiveSpans()
  readonly requests = new LiveRequests()

  observeTask(ended: EndedTask): void {
    this.samples.observeTask(ended)
    this.spans.observe(ended)
    this.requests.observeTask(ended)
  }

  start(parts: StartParts): () => void {
    const stops = [
      this.samples.start(parts),
      this.spans.start(parts),
      this.requests.start(parts.realtime, parts.log),
    ]
    return () => {
      for (const stop of stops) stop()
    }
  }
}

export const opsEvents = [opsSample, opsSpans, opsRequests] as const

/** All of `/v1/ops`. */
export const opsRoutes = ({ live, database, ...parts }: RouteParts) =>
  createRouter()
    .route('/', sampleRoutes(live.samples, database.serverVersion))
    .route('/', spanRoutes(live.spans))
    .route('/', profileRoutes(parts))
    .route('/', requestRoutes(live.requests))
