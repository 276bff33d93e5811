import type { TestProject } from 'vitest/node'
import { openTemporaryDatabase } from '../../scripts/database/local-database.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A MySQL server for the whole run; each test file makes a database of its own on it. */
    serverUrl: string
  }
}

/** Before all tests: starts the server. The function it returns runs after them. */
export default async function setup(project: TestProject) {
  const server = await openTemporaryDatabase()
  console.log(`Tests run on ${server.label}`)
  project.provide('serverUrl', server.url)
  return () => server.stop()
}
