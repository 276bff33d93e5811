import type { Progress } from './progress.ts'

/** What a file `NAME.bench.ts` exports as `bench`: `npm run bench -- NAME` runs it. */
export interface Bench<Figures extends object = object> {
  /** For `npm run bench -- --help`. */
  description: string
  /** Those whose versions stand beside the figures. */
  packages: readonly string[]
  /** Puts what it starts on `started`, which is disposed of when it has ended or is interrupted. */
  run(options: RunOptions): Promise<Findings<Figures>>
  /** What of the figures goes into the README's table. */
  summarise?(figures: Figures): SummaryRow[]
}

interface RunOptions {
  started: AsyncDisposableStack
  progress: Progress
  /** Whether a first impression is enough: V8 has hardly warmed up, and nothing is a median. */
  quick: boolean
}

export interface Findings<Figures extends object = object> {
  /** For the terminal. */
  tables: Table[]
  /** For the file of results. */
  figures: Figures
  targets?: Target[]
  /** Further files of results, by name. */
  files?: Record<string, string>
}

export interface Table {
  title: string
  /** Their fields are the columns. */
  rows: readonly object[]
  /** Those that stand in the figures. */
  targets?: Target[]
}

/** What was measured, the figure, and what stands beside it. */
type SummaryRow = [what: string, figure: string, beside: string]

export interface Target {
  what: string
  wanted: string
  measured: number
  met: boolean
}

export const atMost = (what: string, measured: number, limit: number): Target => ({
  what,
  wanted: `≤ ${limit}`,
  measured,
  met: measured <= limit,
})

export const atLeast = (what: string, measured: number, limit: number): Target => ({
  what,
  wanted: `≥ ${limit}`,
  measured,
  met: measured >= limit,
})
