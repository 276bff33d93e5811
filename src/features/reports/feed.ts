import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { isFinished, type JobChange } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import type { Database } from '../../db/database.ts'
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

/** How often reports that somebody listens to are read: other processes do not notify of theirs. */
const READ_EVERY_MS = 1_000
const READ_TIMEOUT_MS = 5_000

export interface Watcher {
  progress(progress: ReportProgress): void
  /** The last call. */
  finished(end: { id: string; state: ReportState }): void
}

interface FeedOptions {
  database: Database
  jobs: Jobs
  realtime: Realtime
  log: Log
  stopping: AbortSignal
}

/** A watcher, and what it was notified of last. */
interface Watch {
  watcher: Watcher
  seen: string | undefined
}

/** What the listeners of a report were notified of last. */
interface LastSent {
  news: string
  finished: boolean
  at: number
}

/**
 * Notifies of reports: everybody over Socket.IO, and watchers here. What this process does it hears
 * from its jobs, and what others do it reads once a second, for as long as somebody listens. After
 * a report has finished, nothing more is sent of it, unless it is retried. Of a report that nobody
 * listens to, nothing is kept.
 */
export class ReportFeed {
  readonly #options: FeedOptions
  readonly #watches = new Map<string, Set<Watch>>()
  readonly #lastSent = new Map<string, LastSent>()

  constructor(options: FeedOptions) {
    this.#options = options
    options.jobs.onChange((change) => {
      if (change.kind === buildReport.name && this.#hasListeners(change.id)) this.#notify(change)
    })
    void this.#readWhileRunning()
  }

  /** Watches a report from now on, beginning with how it is; gives the function that ends it. */
  watch(id: string, watcher: Watcher): () => void {
    const watches = this.#watches.get(id) ?? new Set()
    const watch = { watcher, seen: undefined }
    this.#watches.set(id, watches.add(watch))
    void this.#read([id])
    return () => {
      watches.delete(watch)
      if (watches.size === 0 && this.#watches.get(id) === watches) this.#watches.delete(id)
    }
  }

  #hasListeners(id: string): boolean {
    return this.#watches.has(id) || this.#options.realtime.hasSubscribers(topicOf(id))
  }

  /**
   * What the process itself says may come late, after the job was cancelled; what was read is how
   * it was then.
   */
  #notify(change: JobChange, readAt?: number) {
    const last = this.#lastSent.get(change.id)
    const progress = toProgress(change)
    if (last?.finished && readAt === undefined && progress.state !== 'queued') return
    if (last && readAt !== undefined && last.at > readAt) return
    const news = JSON.stringify(progress)
    if (last?.news !== news) {
      this.#lastSent.set(change.id, {
        news,
        finished: isFinished(change.state),
        at: performance.now(),
      })
      this.#publish(progress)
    }
    // Those who began to watch since then have not seen it yet.
    for (const watch of [...(this.#watches.get(change.id) ?? [])])
      if (watch.seen !== news) this.#notifyWatcher(watch, progress, news)
  }

  #publish(progress: ReportProgress) {
    const { id, state } = progress
    const { realtime } = this.#options
    if (isFinished(state)) realtime.emit(topicOf(id), reportFinished, { id, state })
    else realtime.emitLatest(topicOf(id), reportProgress, progress)
  }

  #notifyWatcher(watch: Watch, progress: ReportProgress, news: string) {
    const { id, state } = progress
    watch.seen = news
    try {
      if (isFinished(state)) watch.watcher.finished({ id, state })
      else watch.watcher.progress(progress)
    } catch (error) {
      this.#options.log.error({ err: error, report: id }, 'A watcher of a report failed')
    }
  }

  async #readWhileRunning() {
    const { stopping, log } = this.#options
    while (!stopping.aborted) {
      await sleep(READ_EVERY_MS, undefined, { signal: stopping, ref: false }).catch(() => {})
      try {
        const ids = this.#findListenedTo()
        if (ids.length > 0 && !stopping.aborted) await this.#read(ids)
      } catch (error) {
        log.error({ err: error }, 'Could not notify of reports')
      }
    }
  }

  /** The reports that may have changed and that somebody listens to; forgets the others. */
  #findListenedTo(): string[] {
    const subscribed = this.#options.realtime
      .subscribed(REPORT_TOPIC)
      .map((topic) => topic.slice(topicOf('').length))
    const ids = new Set([...this.#watches.keys(), ...subscribed])
    for (const id of this.#lastSent.keys()) if (!ids.has(id)) this.#lastSent.delete(id)
    return [...ids].filter((id) => !this.#lastSent.get(id)?.finished || this.#watches.has(id))
  }

  async #read(ids: string[]) {
    const { database, log, stopping } = this.#options
    const readAt = performance.now()
    try {
      const signal = AbortSignal.any([stopping, AbortSignal.timeout(READ_TIMEOUT_MS)])
      for (const change of await readChanges(database.withSignal(signal), ids))
        this.#notify(change, readAt)
    } catch (error) {
      if (!stopping.aborted) log.warn({ err: error }, 'Could not read the reports that are watched')
    }
  }
}

const toProgress = ({ id, state, progress, note, attempt }: JobChange): ReportProgress => ({
  id,
  state: toReportState(state),
  progress,
  note,
  attempt,
})
