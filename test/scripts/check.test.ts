import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'

const SCRIPT = join(import.meta.dirname, '../../scripts/check.ts')

/** Runs the script with tools that print their name and exit as they are told. */
function check(
  exitCodes: Partial<Record<'tsc' | 'biome' | 'imports' | 'manifests' | 'knip', number>>,
) {
  const folder = mkdtempSync(join(tmpdir(), 'check-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  for (const name of ['bin', 'scripts']) mkdirSync(join(folder, name))
  for (const name of ['tsc', 'biome', 'knip'] as const)
    writeFileSync(
      join(folder, 'bin', name),
      `#!/bin/sh\necho "ran ${name}"\nexit ${exitCodes[name] ?? 0}\n`,
      { mode: 0o755 },
    )
  for (const name of ['imports', 'manifests'] as const)
    writeFileSync(
      join(folder, `scripts/check-${name}.ts`),
      `console.log('ran ${name}'); process.exitCode = ${exitCodes[name] ?? 0}`,
    )
  const path = [join(folder, 'bin'), dirname(process.execPath), '/usr/bin', '/bin'].join(delimiter)
  const { stdout, status } = spawnSync(process.execPath, [SCRIPT], {
    cwd: folder,
    env: { PATH: path },
    encoding: 'utf8',
  })
  return {
    status,
    ran: stdout.match(/(?<=^ran )\w+$/gm),
    failed: stdout.match(/(?<=^Failed: ).*$/m)?.[0],
  }
}

const ALL = ['tsc', 'tsc', 'biome', 'imports', 'manifests', 'knip']

test('all tools run, and none failed', () => {
  expect(check({})).toEqual({ status: 0, ran: ALL, failed: undefined })
})

test('a tool that fails keeps none of the others from running, and the end names all that failed', () => {
  expect(check({ tsc: 2, knip: 1 })).toEqual({
    status: 1,
    ran: ALL,
    failed: 'tsc --noEmit, tsc -p tsconfig.page.json, knip',
  })
  expect(check({ imports: 1 })).toEqual({
    status: 1,
    ran: ALL,
    failed: 'node scripts/check-imports.ts',
  })
})
