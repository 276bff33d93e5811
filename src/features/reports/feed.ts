import { isFinished } from '@offloop/jobs/job'
import type { Db } from '../../db/database.ts'
import type { Deps } from '../../feature.ts'
import type { AppContext } from '../../http/context.ts'
import { eventStream } from '../../http/sse.ts'
import {
  buildReport,
  REPORT_TOPIC,
  type ReportBrief,
  reportFinished,
  reportProgress,
  toTopic,
} from './contract.ts'
import { getReport, toState } from './reports.ts'

/**
 * Publishes changes of reports that have subscribers, wherever they run. A finished report
 * publishes nothing until it is retried: a cancelled task may still report progress.
 */
export function publishReports({ jobs, realtime }: Pick<Deps, 'jobs' | 'realtime'>): () => void {
  const lastSent = new Map<string, string>()
  const finished = new Set<string>()
  const findWatched = () => {
    const topics = realtime.subscribed(REPORT_TOPIC)
    const watched = new Set(topics.map((topic) => topic.slice(toTopic('').length)))
    for (const id of lastSent.keys()) if (!watched.has(id)) lastSent.delete(id)
    for (const id of finished) if (!watched.has(id)) finished.delete(id)
    return watched.difference(finished)
  }
  return jobs.onChange((change) => {
    const { id, kind } = change
    if (kind !== buildReport.name || !realtime.hasSubscribers(toTopic(id))) return
    const progress = toProgress({ ...change, state: toState(change.state) })
    const payload = JSON.stringify(progress)
    if (lastSent.get(id) === payload || (finished.has(id) && progress.state !== 'queued')) return
    lastSent.set(id, payload)
    finished.delete(id)
    if (isFinished(change.state)) {
      finished.add(id)
      realtime.emit(toTopic(id), reportFinished, { id, state: progress.state })
    } else realtime.emitLatest(toTopic(id), reportProgress, progress)
  }, findWatched)
}

/** Streams a report's events, beginning with its present state. */
export function streamReport(c: AppContext, { realtime, stopping }: Deps, db: Db, id: string) {
  return eventStream(c, stopping, ({ latest, last, end }) => {
    let isCurrent = false
    const send = (name: string, payload: unknown) => {
      isCurrent = true
      if (name === reportFinished.name) last(name, payload)
      else latest(name, payload)
    }
    // Read after subscribing, so that no change is missed.
    const unsubscribe = realtime.listen(toTopic(id), send)
    getReport(db, id)
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

const toProgress = ({
  id,
  state,
  progress,
  note,
  attempt,
}: Pick<ReportBrief, 'id' | 'state' | 'progress' | 'note' | 'attempt'>) => ({
  id,
  state,
  progress,
  note,
  attempt,
})
