import { globSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { serveTasks } from '@offloop/workpool/worker-main'

/** What each worker thread runs: every feature's CPU work, and nothing that does I/O. */
for (const file of globSync('features/*/compute.ts', { cwd: import.meta.dirname }))
  await import(pathToFileURL(join(import.meta.dirname, file)).href)

serveTasks()
