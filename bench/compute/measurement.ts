import { interruption } from '../interruption.ts'
import { MEASUREMENTS } from './measurements.ts'
import type { Report } from './report.ts'

/**
 * A process of its own for each measurement: none meets the memory, the compiled code or the
 * garbage of another.
 */
const [name = ''] = process.argv.slice(2)
process.on('disconnect', () => process.exit())
process.send?.(await report(), () => process.exit())

async function report(): Promise<Report | undefined> {
  await using started = new AsyncDisposableStack()
  return await Promise.race([MEASUREMENTS[name]?.(started), interruption()])
}
