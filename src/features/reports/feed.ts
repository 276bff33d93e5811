import { isDeepStrictEqual } from 'node:util'
import type { z } from '@hono/zod-openapi'
import { isFinished } from '@offloop/jobs/job'
import type { Db } from '../../db/database.ts'
import type { Deps } from '../../feature.ts'
import { type AppContext, expectSubject } from '../../http/context.ts'
import { eventStream } from '../../http/sse.ts'
import {
  buildReport,
  REPORT_TOPIC,
  reportFinished,
  reportProgress,
  toReportId,
  toTopic,
} from './contract.ts'
import { getReport, toState } from './reports.ts'

type Progress = z.infer<typeof reportProgress.payload>

/** After that, an end that no other process has published is published here. */
const RELAYED_MS = 1_000

/**
 * Publishes changes of reports with subscribers: its own to all processes, those that it reads to
 * its clients. After an end, nothing until a retry: a cancelled task may still report progress.
 */
export function publishReports({ jobs, realtime }: Pick<Deps, 'jobs' | 'realtime'>): () => void {
  const lastSent = new Map<string, Pick<Progress, 'state'>>()
  /** Ends that this process read before another has published them. */
  const unpublished = new Map<string, Progress>()
  const hasFinished = (id: string) => isFinished(lastSent.get(id)?.state ?? 'queued')
  const findWatched = () => {
    for (const id of lastSent.keys()) if (!realtime.hasSubscribers(toTopic(id))) lastSent.delete(id)
    return realtime
      .subscribed(REPORT_TOPIC)
      .map(toReportId)
      .filter((id) => !hasFinished(id))
  }
  const publish = (progress: Progress, reach: 'all' | 'local') => {
    const { id, state } = progress
    const topic = toTopic(id)
    if (isDeepStrictEqual(lastSent.get(id), progress)) return
    if (hasFinished(id) && state !== 'queued') return
    lastSent.set(id, progress)
    if (isFinished(state)) realtime.emit(topic, reportFinished, { id, state }, reach)
    else realtime.emitLatest(topic, reportProgress, progress, reach)
  }
  const stops = [
    realtime.onRelayed(({ topic, payload }) => {
      if (!REPORT_TOPIC.test(topic)) return
      const progress = payload as Pick<Progress, 'state'>
      lastSent.set(toReportId(topic), progress)
      // It has ended, or ended and is retried.
      if (progress.state !== 'running') unpublished.delete(toReportId(topic))
    }),
    jobs.onChange(({ kind, ...change }, isOwn) => {
      if (kind !== buildReport.name || !realtime.hasSubscribers(toTopic(change.id))) return
      const progress = toProgress({ ...change, state: toState(change.state) })
      if (isOwn) publish(progress, 'all')
      else if (!realtime.isRelaying) publish(progress, 'local')
      else if (isFinished(progress.state)) {
        unpublished.set(progress.id, progress)
        setTimeout(() => {
          if (unpublished.delete(progress.id)) publish(progress, 'local')
        }, RELAYED_MS).unref()
      }
    }, findWatched),
  ]
  return () => {
    for (const stop of stops) stop()
  }
}

/** Streams a report's events, beginning with its present state. */
export function streamReport(c: AppContext, deps: Deps, db: Db, id: string) {
  return eventStream(c, deps, ({ latest, last, end }) => {
    let isCurrent = false
    const send = (name: string, payload: unknown) => {
      isCurrent = true
      if (name === reportFinished.name) last(name, payload)
      else latest(name, payload)
    }
    // Read after subscribing, so that no change is missed.
    const unsubscribe = deps.realtime.listen(toTopic(id), send)
    getReport(db, id, expectSubject(c))
      .then((report) => {
        if (isCurrent) return
        const { state } = report
        if (isFinished(state)) send(reportFinished.name, { id, state })
        else send(reportProgress.name, toProgress(report))
      })
      .catch(end)
    return unsubscribe
  })
}

const toProgress = (report: Progress): Progress => reportProgress.payload.parse(report)
