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

/**
 * Publishes changes of reports that have subscribers. A finished report publishes nothing until it
 * is retried: a cancelled task may still report progress.
 */
export function publishReports({ jobs, realtime }: Pick<Deps, 'jobs' | 'realtime'>): () => void {
  const lastSent = new Map<string, Progress>()
  const hasFinished = (id: string) => isFinished(lastSent.get(id)?.state ?? 'queued')
  const findWatched = () => {
    const topics = realtime.subscribed(REPORT_TOPIC)
    const watched = topics.map(toReportId)
    for (const id of new Set(lastSent.keys()).difference(new Set(watched))) lastSent.delete(id)
    return watched.filter((id) => !hasFinished(id))
  }
  return jobs.onChange(({ kind, ...change }) => {
    const topic = toTopic(change.id)
    if (kind !== buildReport.name || !realtime.hasSubscribers(topic)) return
    const progress = toProgress({ ...change, state: toState(change.state) })
    const { id, state } = progress
    if (isDeepStrictEqual(lastSent.get(id), progress)) return
    if (hasFinished(id) && state !== 'queued') return
    lastSent.set(id, progress)
    if (isFinished(state)) realtime.emit(topic, reportFinished, { id, state })
    else realtime.emitLatest(topic, reportProgress, progress)
  }, findWatched)
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
