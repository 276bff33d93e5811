import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')
const RUN = join(ROOT, 'bin/run')

test('runs a command in the project folder, with its arguments, output and exit code', () => {
  const code = 'console.log(process.cwd(), process.argv[1], process.version); process.exit(7)'
  const { stdout, status } = spawnSync(RUN, ['node', '--eval', code, 'two words'], {
    cwd: tmpdir(),
    encoding: 'utf8',
  })
  expect(stdout).toMatch(new RegExp(`^${ROOT} two words v26`, 'm'))
  expect(status).toBe(7)
})

test('is replaced by the command, which therefore gets the signals', async () => {
  const code =
    "process.on('SIGTERM', () => process.exit(3)); console.log(process.pid); setInterval(() => {}, 1_000)"
  const child = spawn(RUN, ['node', '--eval', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [pid] = await once(child.stdout, 'data')
  expect(Number(pid)).toBe(child.pid)
  child.kill('SIGTERM')
  expect(await once(child, 'exit')).toEqual([3, null])
})
