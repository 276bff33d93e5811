import { Compute } from '@offloop/workpool/compute'
import { endlessly, lookAtProcess } from './tasks.ts'

/**
 * A service with one child process, whose id it prints; `busy` says that the child never comes to
 * rest.
 */
const compute = await Compute.open({
  threads: 1,
  entry: new URL('./tasks-thread.ts', import.meta.url),
})
const { pid } = await compute.run(lookAtProcess, null, { isolation: 'process' })
if (process.argv[2] === 'busy') void compute.run(endlessly, null, { isolation: 'process' })
console.log(pid)
