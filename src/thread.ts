import { globSync } from 'node:fs'
import { createRequire } from 'node:module'
import { serveTasks } from '@offloop/workpool/worker-main'

// Synchronous: a thread that is terminated during a top-level await may end the process
// (nodejs/node#62114).
const load = createRequire(import.meta.url)

/** Worker threads run the CPU work of all features, and no I/O. */
for (const file of globSync('./{access,features/*}/compute.ts', { cwd: import.meta.dirname }))
  load(`./${file}`)

serveTasks()
