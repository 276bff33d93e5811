import { expect, test } from 'vitest'
import { useDatabase } from './support/database.ts'
import { useProcess } from './support/process.ts'
import { hasValkey, useValkey } from './support/valkey.ts'

/** Prints what is loaded of the packages that only several processes need. */
const HOOK = `data:text/javascript,${encodeURIComponent(`
  import { registerHooks } from 'node:module'
  registerHooks({
    load(url, context, next) {
      const [name] = url.match(/node_modules.(bullmq|ioredis)/) ?? []
      if (name) console.log('loads', name)
      return next(url, context)
    },
  })
`)}`

const start = async (env: NodeJS.ProcessEnv) => {
  const { url: DATABASE_URL } = await useDatabase()
  const service = useProcess('src/main.ts', { DATABASE_URL, ...env }, ['--import', HOOK])
  await service.url()
  return service
}

test('one process without VALKEY_URL loads nothing that only several need', async () => {
  const { output } = await start({})
  expect(output()).not.toContain('loads')
})

test.runIf(hasValkey)('with VALKEY_URL it does', async () => {
  const { url } = await useValkey()
  const { output } = await start({ VALKEY_URL: url })
  expect(output()).toMatch(/loads .*bullmq/)
})
