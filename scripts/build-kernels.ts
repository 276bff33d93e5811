import { execFileSync } from 'node:child_process'
import { existsSync, globSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * Compiles each `src/features/<name>/<kernel>.kernel.ts` to a `<kernel>.wasm` beside it. Part of the install, and of the
 * image's build. One that is newer than its source, the compiler and this file is left as it is.
 */
const ROOT = join(import.meta.dirname, '..')
const COMPILER = fileURLToPath(import.meta.resolve('assemblyscript/bin/asc.js'))
const COMPILER_VERSION = fileURLToPath(import.meta.resolve('assemblyscript/package.json'))
// No runtime: a kernel's memory is laid out by hand, and its loop has no use for a garbage collector.
const OPTIONS = ['-O3', '--noAssert', '--enable=simd', '--runtime=stub']

for (const source of globSync('src/features/*/*.kernel.ts', { cwd: ROOT })) {
  const output = source.replace(/\.kernel\.ts$/, '.wasm')
  if (isCurrent(join(ROOT, output), [join(ROOT, source), COMPILER_VERSION, import.meta.filename])) continue
  console.log(`Compiling ${source}`)
  // Under another name first: a service that starts meanwhile must not load half of it.
  const unfinished = `${output}.${process.pid}`
  execFileSync(process.execPath, [COMPILER, source, `--outFile=${unfinished}`, ...OPTIONS], { cwd: ROOT, stdio: 'inherit' })
  renameSync(join(ROOT, unfinished), join(ROOT, output))
}

function isCurrent(output: string, inputs: string[]): boolean {
  if (!existsSync(output)) return false
  const builtAt = statSync(output).mtimeMs
  return inputs.every((input) => statSync(input).mtimeMs < builtAt)
}
