import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { describe, expect, test } from 'vitest'
import { createEnvironment } from '../worker.ts'

describe("a thread's environment", () => {
  test("has nothing of the process's", () => {
    expect(Object.keys(createEnvironment())).toEqual(['NODE_COMPILE_CACHE'])
  })

  test('has it keep what it compiles where the process does', async () => {
    const code = `require('worker_threads').parentPort.postMessage(require('module').getCompileCacheDir())`
    const thread = new Worker(code, { eval: true, env: createEnvironment() })
    const [folder] = await once(thread, 'message')
    expect(folder).toMatch(process.env['NODE_COMPILE_CACHE'] ?? 'none')
  })

  test('is empty where nothing can be written', () => {
    const code = `import { createEnvironment } from './packages/workpool/worker.ts'; console.log(createEnvironment())`
    const env = { PATH: process.env['PATH'], NODE_COMPILE_CACHE: '/dev/null/none' }
    expect(
      execFileSync(process.execPath, ['--input-type=module', '--eval', code], {
        env,
        encoding: 'utf8',
      }),
    ).toBe('{}\n')
  })
})
