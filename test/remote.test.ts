import { expect, test } from 'vitest'
import { useDatabase } from './support/database.ts'
import { RECORD_LOADS, useProcess } from './support/process.ts'
import { hasValkey, useValkey } from './support/valkey.ts'

const BULLMQ = /^loads .*\/bullmq\//m

const start = async (env: NodeJS.ProcessEnv) => {
  const { url: DATABASE_URL } = await useDatabase()
  const service = useProcess('src/main.ts', { DATABASE_URL, ...env }, RECORD_LOADS)
  await service.url()
  return service
}

test('one process without VALKEY_URL loads nothing that only several need', async () => {
  const { output } = await start({})
  expect(output()).toContain('loads ')
  expect(output()).not.toMatch(BULLMQ)
})

test.runIf(hasValkey)('with VALKEY_URL it does', async () => {
  const { url } = await useValkey()
  const { output } = await start({ VALKEY_URL: url })
  expect(output()).toMatch(BULLMQ)
})
