import { describe, expect, test } from 'vitest'
import { useDatabase } from './support/database.ts'
import { RECORD_LOADS, useProcess } from './support/process.ts'
import { until } from './support/until.ts'
import { hasValkey, useValkey } from './support/valkey.ts'

/** What only several processes need. */
const SHARED = /\/(ioredis|bullmq|src\/valkey|src\/realtime\/relay|shared-counters)\b/

describe('one process without a Valkey', () => {
  test('loads nothing of what several need, and connects to its database only', async () => {
    const { loads, ports, databasePort } = await start({})
    expect(loads.filter((url) => SHARED.test(url))).toEqual([])
    expect(ports).toEqual([databasePort])
  })

  test.runIf(hasValkey)('differs in that from one with a Valkey', async () => {
    const { url } = await useValkey()
    const { loads, ports, databasePort } = await start({ VALKEY_URL: url })
    for (const name of ['ioredis', 'bullmq'])
      expect(loads.some((url) => url.includes(`/${name}/`))).toBe(true)
    expect(ports).toEqual([databasePort, new URL(url).port].sort())
  })
})

/** What a process has loaded, and where it has connected to, once it listens. */
async function start(env: NodeJS.ProcessEnv) {
  const { url: DATABASE_URL } = await useDatabase()
  const { output, url } = useProcess(
    'test/support/fixture/main.ts',
    { DATABASE_URL, ...env },
    RECORD_LOADS,
  )
  await url()
  const find = (pattern: RegExp) => [...output().matchAll(pattern)].map(([, found = '']) => found)
  await until(() => find(/^loads (.*\/src\/main\.ts)$/gm).length > 0, 'all is recorded')
  return {
    loads: find(/^loads (.*)$/gm),
    ports: [...new Set(find(/^connects to port (\d+)$/gm))].sort(),
    databasePort: new URL(DATABASE_URL).port,
  }
}
