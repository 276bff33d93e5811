import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')
const SOURCE = 'src/features/sums/add.kernel.ts'
const KERNEL = 'src/features/sums/add.wasm'
const ADD = 'export function add(a: i32, b: i32): i32 { return a + b }\n'

let project: string

/** A project that has the compiler and one kernel. */
beforeEach(() => {
  project = mkdtempSync(join(tmpdir(), 'kernels-'))
  onTestFinished(() => rmSync(project, { recursive: true }))
  mkdirSync(join(project, 'src/features/sums'), { recursive: true })
  for (const file of ['package.json', 'scripts/build-kernels.ts']) cpSync(join(ROOT, file), join(project, file))
  symlinkSync(join(ROOT, 'node_modules'), join(project, 'node_modules'))
  writeFileSync(join(project, SOURCE), ADD)
})

const build = () =>
  execFileSync(process.execPath, [join(project, 'scripts/build-kernels.ts')], { encoding: 'utf8', stdio: 'pipe' })
const kernel = () => readFileSync(join(project, KERNEL))

test('compiles a kernel once, and again when it changed', () => {
  expect(build()).toContain(`Compiling ${SOURCE}`)
  const first = kernel()
  expect(first.subarray(0, 4).toString('latin1')).toBe('\0asm')
  expect(build()).toBe('')

  writeFileSync(join(project, SOURCE), ADD.replace('a + b', 'a - b'))
  expect(build()).toContain(`Compiling ${SOURCE}`)
  expect(kernel()).not.toEqual(first)
})

test('compiles again what is older than how it is compiled', () => {
  build()
  utimesSync(join(project, KERNEL), 0, 0)
  expect(build()).toContain(`Compiling ${SOURCE}`)
})

test('a mistake in a kernel fails the build, is shown, and leaves nothing behind', () => {
  writeFileSync(join(project, SOURCE), 'export function add(a: i32): i32 { return b }\n')
  expect(build).toThrow(/Cannot find name 'b'/)
  expect(existsSync(join(project, KERNEL))).toBe(false)
  expect(readdirSync(join(project, 'src/features/sums'))).toEqual(['add.kernel.ts'])
})
