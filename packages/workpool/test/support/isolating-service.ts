import { Pool } from '@offloop/workpool/pool'
import { describeProcess, endlessly } from './tasks.ts'

/**
 * A service with one child process, whose id it prints; `busy` says that the child never comes to
 * rest.
 */
const pool = await Pool.open({
  threads: 1,
  entry: new URL('./worker.ts', import.meta.url),
})
const { pid } = await pool.run(describeProcess, null, { isolation: 'process' })
if (process.argv[2] === 'busy') void pool.run(endlessly, null, { isolation: 'process' })
console.log(pid)
