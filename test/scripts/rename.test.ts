import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { until } from '../support/until.ts'

const ROOT = join(import.meta.dirname, '../..')
const START_TIMEOUT_MS = 50_000

/** A copy of the project. */
function useClone() {
  const folder = mkdtempSync(join(tmpdir(), 'rename-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  cpSync(ROOT, folder, {
    recursive: true,
    filter: (path) => !['node_modules', '.git', '.data', '.env'].includes(basename(path)),
  })
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  const rename = (...args: string[]) =>
    execFileSync(process.execPath, [join(folder, 'scripts/rename.ts'), ...args], {
      encoding: 'utf8',
      stdio: 'pipe',
    })
  return { folder, rename }
}

test('gives a clone a name with dashes, and its service starts on a database of that name', async () => {
  const { folder, rename } = useClone()
  expect(rename('my-shop-api')).toContain('offloop is my-shop-api now')
  const search = [
    '-rIl',
    '[^@]offloop',
    folder,
    '--exclude-dir=node_modules',
    '--exclude-dir=.data',
  ]
  const left = execFileSync('grep', search, { encoding: 'utf8' })
  expect(left.replaceAll(`${folder}/`, '').trim().split('\n').toSorted()).toEqual(
    expect.arrayContaining(['CHANGELOG.md', 'LICENSE']),
  )
  expect(left).not.toMatch(new RegExp(`^${folder}/(?!packages/|CHANGELOG.md|LICENSE)`, 'm'))
  expect(readFileSync(join(folder, 'README.md'), 'utf8')).toMatch(/^# my-shop-api\n/)

  const { DATABASE_URL: _, ...env } = process.env
  const child = spawn(join(folder, 'bin/node'), [join(folder, 'scripts/start.ts')], {
    cwd: folder,
    env: { ...env, PORT: '0', OPS_PORT: 'off', COMPUTE_THREADS: '1' },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const closed = once(child, 'close')
  onTestFinished(async () => {
    child.kill('SIGINT')
    await closed
  })
  await until(
    () => /^my-shop-api runs on http/m.test(output) || child.exitCode !== null,
    'it runs',
    START_TIMEOUT_MS,
  )
  expect(output).toMatch(/^my-shop-api runs on http/m)
})

test('refuses a name that MySQL, npm or Docker would', () => {
  const { folder, rename } = useClone()
  const before = readFileSync(join(folder, 'package.json'), 'utf8')
  for (const name of ['My Shop', 'shop_api', '-shop', 'a'.repeat(33), ''])
    expect(() => rename(name)).toThrow('Expected a name in lower case')
  expect(readFileSync(join(folder, 'package.json'), 'utf8')).toBe(before)
})
