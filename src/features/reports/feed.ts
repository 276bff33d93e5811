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
  reportFinished,
  reportProgress,
  topicOf,
} from './contract.ts'
import { readChanges } from './queries.ts'
import { toReportState } from './reports.ts'

/** How often reports that somebody listens to are read: other processes do not notify of theirs. */
const READ_EVERY_MS = 1_000
const READ_TIMEOUT_MS = 5_000

interface FeedOptions {
  database: Database
  jobs: Jobs
  realtime: Realtime
  log: Log
  stopping: AbortSignal
}

/** What the subscribers of a report were notified of last. */
interface LastSent {
  payload: string
  finished: boolean
  at: number
}

/**
 * Publishes how reports proceed. What this process does it hears from its jobs, and what others do
 * it reads once a second, for as long as somebody is subscribed. After a report has finished,
 * nothing more is sent of it, unless it is retried. Of a report without subscribers, nothing is
 * kept.
 */
export class ReportFeed {
  readonly #options: FeedOptions
  readonly #lastSent = new Map<string, LastSent>()
  readonly #stopListening: () => void

  constructor(options: FeedOptions) {
    this.#options = options
    this.#stopListening = options.jobs.onChange((change) => {
      const isWanted = change.kind === buildReport.name
      if (isWanted && options.realtime.hasSubscribers(topicOf(change.id))) this.#notify(change)
    })
    void this.#readWhileRunning()
  }

  close(): void {
    this.#stopListening()
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
    const payload = JSON.stringify(progress)
    if (last?.payload === payload) return
    this.#lastSent.set(change.id, {
      payload,
      finished: isFinished(change.state),
      at: performance.now(),
    })
    this.#publish(progress)
  }

  #publish(progress: ReportProgress) {
    const { id, state } = progress
    const { realtime } = this.#options
    if (isFinished(state)) realtime.emit(topicOf(id), reportFinished, { id, state })
    else realtime.emitLatest(topicOf(id), reportProgress, progress)
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
    const topics = this.#options.realtime.subscribed(REPORT_TOPIC)
    const ids = new Set(topics.map((topic) => topic.slice(topicOf('').length)))
    for (const id of this.#lastSent.keys()) if (!ids.has(id)) this.#lastSent.delete(id)
    return [...ids].filter((id) => !this.#lastSent.get(id)?.finished)
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

export const toProgress = ({ id, state, progress, note, attempt }: JobChange): ReportProgress => ({
  id,
  state: toReportState(state),
  progress,
  note,
  attempt,
})
