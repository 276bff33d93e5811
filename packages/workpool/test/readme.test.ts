import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtempDisposable } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import * as policy from '../policy.ts'
import { REQUIRED_NODE_FLAGS } from '../worker.ts'

const README = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const PACKAGE = new URL('..', import.meta.url).href

test("the README's table has every scheduling threshold with its value", () => {
  const rows = README.matchAll(/^\| `([A-Z_]+)` \| ([\d_.]+) \|/gm)
  const documented = Array.from(rows, ([, name, value = '']) => [
    name,
    Number(value.replaceAll('_', '')),
  ])
  const thresholds = Object.entries(policy).filter(([, value]) => typeof value === 'number')
  expect(thresholds.length).toBeGreaterThan(30)
  expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(thresholds))
  expect(documented).toHaveLength(thresholds.length)
})

test("the README's example prints what the README says", async () => {
  const [, example = ''] = README.match(/```ts\n([\s\S]*?)```/) ?? []
  await using folder = await mkdtempDisposable(join(tmpdir(), 'workpool-'))
  const file = join(folder.path, 'example.ts')
  writeFileSync(file, example.replace(/'@offloop\/workpool\/([\w-]+)'/g, `'${PACKAGE}$1.ts'`))
  const output = execFileSync(process.execPath, [...REQUIRED_NODE_FLAGS, file], {
    encoding: 'utf8',
  })
  expect(output).toBe('500000500000\n[ 55, 5050, 500500 ] 5105\n')
})
