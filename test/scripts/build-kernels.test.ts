import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'

/** TypeScript knows the global only together with a browser's. */
declare const WebAssembly: { validate(code: Uint8Array): boolean }

const ROOT = join(import.meta.dirname, '../..')
const SOURCE = 'src/features/sums/add.kernel.ts'
const KERNEL = 'src/features/sums/add.wasm'
const ADD = 'export function add(a: i32, b: i32): i32 { return a + b }\n'

/**
 * In the place of npm, which would fetch the compiler: writes an empty module, or fails where the
 * source has a mistake.
 */
const NPM = `#!/bin/sh
echo "$@" >>npm.log
grep -q mistake ${SOURCE} && { echo 'ERROR: a mistake' >&2; exit 1; }
for argument; do case "$argument" in --outFile=*) printf '\\0asm\\1\\0\\0\\0' >"\${argument#--outFile=}";; esac; done
`

let project: string

/** A project with one kernel. */
beforeEach(() => {
  project = mkdtempSync(join(tmpdir(), 'kernels-'))
  onTestFinished(() => rmSync(project, { recursive: true }))
  for (const folder of ['bin', 'scripts', 'src/features/sums'])
    mkdirSync(join(project, folder), { recursive: true })
  for (const file of ['package.json', 'scripts/build-kernels.ts'])
    cpSync(join(ROOT, file), join(project, file))
  writeFileSync(join(project, 'bin/npm'), NPM, { mode: 0o755 })
  writeFileSync(join(project, SOURCE), ADD)
})

const build = () =>
  execFileSync(process.execPath, [join(project, 'scripts/build-kernels.ts')], {
    encoding: 'utf8',
    stdio: 'pipe',
    env: {
      PATH: [join(project, 'bin'), dirname(process.execPath), '/usr/bin', '/bin'].join(delimiter),
    },
  })

test('compiles a kernel once, and again when it changed', () => {
  expect(build()).toContain(`Compiling ${SOURCE}`)
  expect(WebAssembly.validate(readFileSync(join(project, KERNEL)))).toBe(true)
  expect(build()).toBe('')

  writeFileSync(join(project, SOURCE), ADD.replace('a + b', 'a - b'))
  expect(build()).toContain(`Compiling ${SOURCE}`)
  expect(build()).toBe('')
})

test('compiles again what another version of the compiler has made', () => {
  build()
  const script = join(project, 'scripts/build-kernels.ts')
  writeFileSync(
    script,
    readFileSync(script, 'utf8').replace(/assemblyscript@[\d.]+/, 'assemblyscript@99.0.0'),
  )
  expect(build()).toContain(`Compiling ${SOURCE}`)
  expect(readFileSync(join(project, 'npm.log'), 'utf8')).toContain(
    '--package=assemblyscript@99.0.0 -- asc',
  )
})

test('a mistake in a kernel fails the build, is shown, and leaves nothing behind', () => {
  writeFileSync(join(project, SOURCE), 'a mistake\n')
  expect(build).toThrow(/ERROR: a mistake/)
  expect(existsSync(join(project, KERNEL))).toBe(false)
  expect(readdirSync(join(project, 'src/features/sums'))).toEqual(['add.kernel.ts'])
})

test('the kernels that are committed were compiled from the sources beside them', () => {
  rmSync(join(project, SOURCE))
  // A copy: where this fails, the compiler's stand-in must not overwrite the project's kernels.
  cpSync(join(ROOT, 'src/features'), join(project, 'src/features'), { recursive: true })
  expect(build()).toBe('')
})
