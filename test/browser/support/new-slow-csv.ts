import { randomUUID } from 'node:crypto'
import { slowCsv } from '../../support/reports.ts'

/**
 * Megabytes that take DuckDB two seconds on a fast machine, and some more on others: time to see it
 * work, and to press a button.
 */
const SLOW_MEGABYTES = 100

/**
 * A slow file that nobody has sent before: of one that is known the service takes the earlier
 * result.
 */
export const newSlowCsv = () =>
  Buffer.concat([slowCsv(SLOW_MEGABYTES), Buffer.from(`1,1,${randomUUID()}\n`)])
