import { performance } from 'node:perf_hooks'
import { createLRU } from 'lru.min'
import type { OnStatement } from '../db/connection.ts'
import { currentWork, type Statement, type Work } from '../http/context.ts'
import { type Log, Repeats } from '../log.ts'
import type { LiveRequests } from './live-requests.ts'
import type { Metrics } from './metrics.ts'
import type { Tracing } from './tracing.ts'

const MAX_NAMES = 100
const MAX_TEXT_LENGTH = 200
const MAX_SLOW_TEXT_LENGTH = 2_000
const MAX_SEARCHED_LENGTH = 1_000
const MAX_REMEMBERED_LENGTH = 4_000
const MAX_REMEMBERED = 500

interface Kind {
  name: string
  /** Without values. */
  text: string
  observe: (seconds: number) => void
}

interface Parts {
  metrics: Pick<Metrics, 'timeStatements' | 'countSlowStatement'>
  requests: Pick<LiveRequests, 'addStatement'>
  log: Pick<Log, 'warn'>
  /** 0 logs none. */
  slowMs: number
  tracing: Pick<Tracing, 'observeStatement'> | undefined
}

/** Observes SQL for the metrics, the live page, the log and traces. */
export class Statements {
  readonly #parts: Parts
  readonly #slowMs: number
  readonly #kinds = createLRU<string, Kind>({ max: MAX_REMEMBERED })
  readonly #names = new Set<string>()
  readonly #slow = new Repeats()

  constructor(parts: Parts) {
    this.#parts = parts
    this.#slowMs = parts.slowMs || Number.POSITIVE_INFINITY
  }

  observe: OnStatement = (sql, name, session) => {
    const kind = this.#find(sql, name)
    const work = currentWork()
    const trace = work?.trace
    const statement: Statement = { text: kind.text, ms: undefined }
    work?.addStatement?.(statement)
    const startedAt = performance.now()
    return (failed) => {
      const ms = performance.now() - startedAt
      statement.ms = ms
      kind.observe(ms / 1_000)
      this.#parts.requests.addStatement(kind.text, ms)
      if (ms >= this.#slowMs) this.#reportSlow(sql, kind, ms, work)
      if (trace)
        this.#parts.tracing?.observeStatement(trace, { ...kind, startedAt, ms, failed, session })
    }
  }

  #find(sql: string, name?: string): Kind {
    const known = this.#kinds.get(sql)
    if (known) return known
    const text = withoutValues(sql, MAX_SEARCHED_LENGTH).slice(0, MAX_TEXT_LENGTH)
    const bounded = this.#bound(name ?? toName(text))
    const kind = { name: bounded, text, observe: this.#parts.metrics.timeStatements(bounded) }
    if (sql.length <= MAX_REMEMBERED_LENGTH) this.#kinds.set(sql, kind)
    return kind
  }

  #bound(name: string): string {
    if (this.#names.size < MAX_NAMES) this.#names.add(name)
    return this.#names.has(name) ? name : 'other'
  }

  #reportSlow(sql: string, { name, text }: Kind, ms: number, work: Work | undefined) {
    const { log, metrics } = this.#parts
    metrics.countSlowStatement()
    const logOthers = (slow: number) => log.warn({ statement: name, slow }, 'Slow SQL statements')
    if (!this.#slow.isFirst(text, logOthers)) return
    const fields = {
      statement: name,
      sql: withoutValues(sql, MAX_SLOW_TEXT_LENGTH),
      ms: Math.round(ms),
      ...work?.describe(),
      traceId: work?.trace?.traceId,
    }
    log.warn(fields, 'Slow SQL statement')
  }
}

const COMMENTS_AND_LITERALS = new RegExp(
  [
    /\/\*[\s\S]*?(?:\*\/|$)/,
    /(?:--\s|#)[^\n]*/,
    /`([^`]*)`/,
    /'(?:[^'\\]|\\[\s\S]?)*(?:'|$)/,
    /"(?:[^"\\]|\\[\s\S]?)*(?:"|$)/,
    /\b\d[\w.]*/,
  ]
    .map(({ source }) => source)
    .join('|'),
  'g',
)
const COMMENT = /^(?:\/\*|--|#)/

/** A list of any length becomes `?, …`. */
const withoutValues = (sql: string, maxLength: number): string =>
  sql
    .slice(0, maxLength)
    .replace(COMMENTS_AND_LITERALS, (found, identifier?: string) =>
      COMMENT.test(found) ? ' ' : (identifier ?? '?'),
    )
    .replace(/\s+/g, ' ')
    .replace(/\?(?:, ?\?)+/g, '?, …')
    .replace(/(\([^()]*\))(?:, ?\1)+/g, '$1, …')
    .trim()

/** Such as `select job`: the verb and the first table. */
function toName(text: string): string {
  const [verb = ''] = text.match(/^[a-z]+/i) ?? []
  const [, table] =
    text.match(/\b(?:from|into|update|join|table)\s+(?!set\b|skip\b)([\w$.]+)/i) ?? []
  return table === undefined ? verb.toLowerCase() : `${verb.toLowerCase()} ${table}`
}
