import { expect, test, vi } from 'vitest'
import type { TestProject } from 'vitest/node'
import { noDatabase } from '../../scripts/database/local-database.ts'
import setup from '../support/server.ts'

/** A machine with neither a database program nor Docker. */
vi.mock('../../scripts/database/private-server.ts', async (importOriginal) => ({
  ...(await importOriginal<object>()),
  findProgram: () => undefined,
}))
vi.mock('testcontainers', () => ({
  getContainerRuntimeClient: () => Promise.reject(new Error('No Docker')),
}))

const URL_LINE = 'export DATABASE_URL=mysql://user:password@host:3306/offloop'

/** The lines to copy, without what they say of themselves. */
const linesOf = (...parameters: Parameters<typeof noDatabase>) =>
  noDatabase(...parameters)
    .message.match(/^ {2}.*?(?= {3}#)/gm)
    ?.map((line) => line.trim())

test('without a database there are lines to copy, for the machine at hand', () => {
  const install = 'sudo apt-get install mariadb-server-core mariadb-client-core'
  expect(linesOf({ platform: 'linux', dockerRefuses: false })).toEqual([install, URL_LINE])
  expect(linesOf({ platform: 'darwin', dockerRefuses: false })).toEqual([
    'brew install mariadb',
    URL_LINE,
  ])
})

test('where Docker refuses this user, the first line says how to be let in', () => {
  expect(linesOf({ dockerRefuses: true })?.[0]).toBe(
    'sudo usermod -aG docker $USER && newgrp docker',
  )
})

test('npm test without a database says so in the same words, without a stack, and fails', async () => {
  vi.stubEnv('DATABASE_URL', undefined)
  vi.stubEnv('TEST_DATABASE', undefined)
  vi.spyOn(process, 'getuid').mockReturnValue(1_000)
  const printed = vi.spyOn(console, 'error').mockImplementation(() => {})
  vi.spyOn(process, 'exit').mockImplementation((code) => {
    throw new Error(`Exit with code ${code}`)
  })
  await expect(setup({ provide() {} } as unknown as TestProject)).rejects.toThrow(
    'Exit with code 1',
  )
  expect(printed.mock.calls).toEqual([[noDatabase().message]])
})
