import { detachedContext } from '@offloop/workpool/task'
import { countPrimesIn } from '../../src/features/primes/compute.ts'

/** What `fastify.ts` has Piscina run on its threads. */
export default (to: number) => countPrimesIn({ from: 0, to }, detachedContext)
