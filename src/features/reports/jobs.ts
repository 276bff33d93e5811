import { handle, type JobHandler, schedule } from '@offloop/jobs/job'
import { type BuildDeps, build } from './build.ts'
import { buildReport, sweepReports } from './contract.ts'
import { sweep } from './sweep.ts'

/** What reports do as jobs: each of them, and every hour the sweep. */
export const reportJobs = (deps: BuildDeps): JobHandler[] => [
  handle(buildReport, (_, context) => build(deps, context)),
  handle(sweepReports, (_, { signal }) => sweep(deps, signal)),
]

export const reportSchedules = [schedule('report.sweep', '41 * * * *', sweepReports, null)]
