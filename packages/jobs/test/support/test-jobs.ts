import { job } from '../../job.ts'

/** Leaves one row behind, a while after it began: what it does can be counted. */
export const leaveMark = job<{ mark: string; ms: number }>('test.leave-mark', {
  attempts: 50,
  backoffMs: 10,
})

/** At most three at once in all processes. */
export const limited = job<{ ms: number }>('test.limited', {
  attempts: 50,
  backoffMs: 10,
  limit: 3,
})

/** At most one at once for each tenant. */
export const fair = job<{ tenant: string; ms: number }>('test.fair', {
  attempts: 50,
  backoffMs: 10,
  key: ({ tenant }) => tenant,
  limitPerKey: 1,
})

/** Ends once there is the mark, whatever its signal says, and gives the id of its process. */
export const sayWho = job<{ mark: string }, number>('test.say-who', { attempts: 5 })

/** Runs until its signal aborts. */
export const waitForSignal = job<null>('test.wait-for-signal', { attempts: 5 })

/** Ends its process: at once, or by an error that nobody catches. */
export const poison = job<{ way: 'exit' | 'throw' }>('test.poison', { attempts: 3 })
