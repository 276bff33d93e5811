import { randomUUID } from 'node:crypto'
import { slowCsv } from '../../support/reports.ts'

/** A slow file that nobody has sent before: of one that is known the service takes the earlier result. */
export const newSlowCsv = (megabytes: number) => Buffer.concat([slowCsv(megabytes), Buffer.from(`1,1,${randomUUID()}\n`)])
