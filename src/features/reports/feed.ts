import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../../db/database.ts'
import type { Jobs } from '../../jobs/jobs.ts'
import { isFinished, type JobChange } from '../../jobs/record.ts'
import type { Log } from '../../log.ts'
import type { Realtime } from '../../realtime/realtime.ts'
import {
  buildReport,
  REPORT_TOPIC,
  type ReportProgress,
  type ReportState,
  reportFinished,
  reportProgress,
  topicOf,
} from './contract.ts'
import { readChanges } from './queries.ts'
import { toReportState } from './reports.ts'

/** How often reports that somebody watches are read: other processes do not tell of theirs. */
const READ_EVERY_MS = 1_000
const READ_TIMEOUT_MS = 5_000
/** Of how many reports at most it is known what was told last. */
const MAX_REMEMBERED = 10_000

export interface Watcher {
  progress(news: ReportProgress): void
  /** The last that it hears. */
  finished(news: { id: string; state: ReportState }): void
}

interface FeedOptions {
  database: Database
  jobs: Jobs
  realtime: Realtime
  log: Log
  stopping: AbortSignal
}

/**
 * Tells of reports: everybody over Socket.IO, and watchers here. What this process does it hears from its jobs, and what
 * others do it reads once a second, for as long as somebody listens. After a report has finished, nothing more is told of
 * it, unless it is retried.
 */
export class ReportFeed {
  readonly #options: FeedOptions
  readonly #watchers = new Map<string, Set<Watcher>>()
  /** What was told last, by report. */
  readonly #told = new Map<string, { news: string; finished: boolean; at: number }>()

  constructor(options: FeedOptions) {
    this.#options = options
    options.jobs.onChange((change) => {
      if (change.kind === buildReport.name) this.#tell(change)
    })
    void this.#readOnAndOn()
  }

  /** Watches a report from now on, beginning with how it is; gives the function that ends it. */
  watch(id: string, watcher: Watcher): () => void {
    const watchers = this.#watchers.get(id) ?? new Set()
    this.#watchers.set(id, watchers.add(watcher))
    void this.#read([id], watcher)
    return () => {
      watchers.delete(watcher)
      if (watchers.size === 0) this.#watchers.delete(id)
    }
  }

  /** What the process itself says may come late, after it was cancelled; what was read is how it was then. */
  #tell(change: JobChange, readAt?: number) {
    const told = this.#told.get(change.id)
    const state = toReportState(change.state)
    if (told?.finished && readAt === undefined && state !== 'queued') return
    if (told && readAt !== undefined && told.at > readAt) return
    const news = JSON.stringify(newsOf(change))
    if (told?.news === news) return
    this.#remember(change.id, { news, finished: isFinished(change.state), at: performance.now() })
    this.#send(change, [...(this.#watchers.get(change.id) ?? [])])
  }

  #send(change: JobChange, watchers: Watcher[]) {
    const { realtime } = this.#options
    const news = newsOf(change)
    if (isFinished(change.state)) realtime.emit(topicOf(change.id), reportFinished, { id: news.id, state: news.state })
    else realtime.emitLatest(topicOf(change.id), reportProgress, news)
    for (const watcher of watchers) tellWatcher(watcher, news)
  }

  #remember(id: string, told: { news: string; finished: boolean; at: number }) {
    this.#told.delete(id)
    this.#told.set(id, told)
    const [oldest] = this.#told.keys()
    if (this.#told.size > MAX_REMEMBERED && oldest !== undefined) this.#told.delete(oldest)
  }

  async #readOnAndOn() {
    const { stopping, realtime } = this.#options
    while (!stopping.aborted) {
      await sleep(READ_EVERY_MS, undefined, { signal: stopping, ref: false }).catch(() => {})
      const subscribed = realtime.subscribed(REPORT_TOPIC).map((topic) => topic.slice(topicOf('').length))
      const ids = new Set([...this.#watchers.keys(), ...subscribed])
      const unfinished = [...ids].filter((id) => !this.#told.get(id)?.finished || this.#watchers.has(id))
      if (unfinished.length > 0 && !stopping.aborted) await this.#read(unfinished)
    }
  }

  /** @param newcomer is told how it is, whether or not others know that already. */
  async #read(ids: string[], newcomer?: Watcher) {
    const { database, log, stopping } = this.#options
    const readAt = performance.now()
    try {
      const signal = AbortSignal.any([stopping, AbortSignal.timeout(READ_TIMEOUT_MS)])
      for (const change of await readChanges(database.withSignal(signal), ids)) {
        if (newcomer) tellWatcher(newcomer, newsOf(change))
        else this.#tell(change, readAt)
      }
    } catch (error) {
      if (!stopping.aborted) log.warn({ err: error }, 'Could not read the reports that are watched')
    }
  }
}

function tellWatcher(watcher: Watcher, news: ReportProgress) {
  const { id, state } = news
  if (isFinished(state)) watcher.finished({ id, state })
  else watcher.progress(news)
}

const newsOf = ({ id, state, progress, note, attempt }: JobChange): ReportProgress => ({
  id,
  state: toReportState(state),
  progress,
  note,
  attempt,
})
