import { implement } from '@offloop/workpool/task'
import { summariseCsv } from './contract.ts'

// DuckDB is loaded by the first report: most threads and processes never see one.
implement(summariseCsv, async (input, context) =>
  (await import('./summarise.ts')).summarise(input, context),
)
