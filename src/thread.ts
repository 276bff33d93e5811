import { globSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { serveTasks } from '@offloop/workpool/worker-main'

/** Worker threads run the CPU work of all features, and no I/O. */
for (const file of globSync('features/*/compute.ts', { cwd: import.meta.dirname }))
  await import(pathToFileURL(join(import.meta.dirname, file)).href)

serveTasks()
