import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { loadKernel } from '../../../src/features/mandelbrot/kernel.ts'

const folder = mkdtempSync(join(tmpdir(), 'kernel-'))
afterAll(() => rmSync(folder, { recursive: true }))

const fileOf = (name: string) => pathToFileURL(join(folder, name))

test('gives what a kernel exports', () => {
  // (module (global (export "answer") i32 (i32.const 42)))
  writeFileSync(
    fileOf('answer.wasm'),
    Buffer.from('0061736d010000000606017f00412a0b070a0106616e737765720300', 'hex'),
  )
  expect(loadKernel<{ answer: { value: number } }>(fileOf('answer.wasm'))?.answer.value).toBe(42)
})

test('gives nothing where the kernel is not built', () => {
  expect(loadKernel(fileOf('absent.wasm'))).toBeUndefined()
})

test('does not take a broken kernel for one that is not built', () => {
  writeFileSync(fileOf('broken.wasm'), 'no kernel')
  expect(() => loadKernel(fileOf('broken.wasm'))).toThrow(/magic word/)
})
