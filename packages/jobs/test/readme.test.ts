import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { useDatabase } from '../../../test/support/database.ts'

const README = readFileSync(new URL('../README.md', import.meta.url), 'utf8')

test("the README's example enqueues a job and prints what came of it", async () => {
  const { url } = await useDatabase()
  const [, example = ''] = README.match(/```ts\n([\s\S]*?)```/) ?? []
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module-typescript', '--eval', example],
    { cwd: import.meta.dirname, env: { ...process.env, DATABASE_URL: url } },
  )
  expect(stdout).toBe('greet queued\ngreet running\ngreet succeeded\nHello, Ada\n')
})
