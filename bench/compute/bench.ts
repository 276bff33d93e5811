import { fork } from 'node:child_process'
import '../../scripts/load-env.ts'
import { align } from '../align.ts'
import { end, fileHere, nextMessage } from '../child.ts'
import { interruption } from '../interruption.ts'
import { machine, versionsOf } from '../machine.ts'
import { writeResultJson } from '../write-result.ts'
import { MEASUREMENTS } from './measurements.ts'
import { type Report, targetRows } from './report.ts'

/**
 * `npm run bench:compute`: what `src/compute` costs and gains beside bare threads and two
 * well-known pools. With names of measurements (`npm run bench:compute -- sum uneven`) only those,
 * and no results file.
 */
const TIMEOUT_MS = 300_000

const only = process.argv.slice(2).filter((argument) => argument !== '--save')
for (const name of only)
  if (!MEASUREMENTS[name])
    throw new Error(`Not one of ${Object.keys(MEASUREMENTS).join(', ')}: ${name}`)
const names = only.length > 0 ? only : Object.keys(MEASUREMENTS)

await using started = new AsyncDisposableStack()
console.log(
  `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB · Node ${process.version}`,
)
const reports = await Promise.race([measureAll(), interruption()])
const targets = Object.values(reports).flatMap((report) => report.targets)
console.log(`\n${align(targetRows(targets))}\n`)
if (only.length === 0)
  writeResultJson('compute.json', {
    measuredAt: new Date().toISOString(),
    machine,
    versions: versionsOf(['piscina', 'poolifier']),
    ...Object.fromEntries(Object.entries(reports).map(([name, { figures }]) => [name, figures])),
    targets,
  })

async function measureAll(): Promise<Record<string, Report>> {
  const reports: Record<string, Report> = {}
  for (const name of names) {
    const report = await measure(name)
    console.log(`\n${report.title}\n${align(report.rows)}`)
    reports[name] = report
  }
  return reports
}

async function measure(name: string): Promise<Report> {
  const child = fork(fileHere('compute/measurement.ts'), [name], { execArgv: ['--expose-gc'] })
  started.defer(() => end(child))
  const report = await nextMessage<Report>(child, TIMEOUT_MS)
  await end(child)
  return report
}
