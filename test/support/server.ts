import type { TestProject } from 'vitest/node'
import { openTemporaryDatabase } from '../../scripts/database/local-database.ts'
import { findValkey, installValkey } from '../../scripts/database/local-valkey.ts'
import { AppError } from '../../src/errors.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A MySQL server for the whole run; each test file makes a database of its own on it. */
    serverUrl: string
  }
}

/** Before all tests: starts the server. The function it returns runs after them. */
export default async function setup(project: TestProject) {
  const server = await openTemporaryDatabase().catch(giveUp)
  console.log(`Tests run on ${server.label}`)
  prepareValkey()
  project.provide('serverUrl', server.url)
  return () => server.stop()
}

/** Tests of several processes are left out where there is none. */
function prepareValkey() {
  try {
    findValkey() ?? installValkey()
  } catch (error) {
    console.warn((error as Error).message)
  }
}

/** Printed by hand, because Vitest would print a stack and then that it found no tests. */
function giveUp(error: unknown): never {
  console.error(error instanceof AppError ? error.message : error)
  process.exit(1)
}
