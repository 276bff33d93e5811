import { spawnSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { appendFileSync, existsSync, globSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Compiles each `src/features/<name>/<kernel>.kernel.ts` to a `<kernel>.wasm` beside it, which is
 * committed, too: the compiler is 100 MB, so npm fetches it only when a kernel has changed. What a
 * `.wasm` was compiled from and how stands in a section of its own, as a hash.
 */
const ROOT = join(import.meta.dirname, '..')
const COMPILER = 'assemblyscript@0.28.20'
// No runtime: a kernel's memory is laid out by hand, and its loop has no use for a garbage
// collector.
const OPTIONS = ['-O3', '--noAssert', '--enable=simd', '--runtime=stub']
const SECTION = 'compiled-from'

for (const source of globSync('src/features/*/*.kernel.ts', { cwd: ROOT })) {
  const output = source.replace(/\.kernel\.ts$/, '.wasm')
  const origin = hash(
    'sha256',
    [COMPILER, ...OPTIONS, readFileSync(join(ROOT, source), 'utf8')].join('\n'),
  )
  if (originOf(join(ROOT, output)) !== origin) compile(source, output, origin)
}

function compile(source: string, output: string, origin: string) {
  console.log(`Compiling ${source}`)
  // Under another name first: a service that starts meanwhile must not load half of it.
  const unfinished = join(ROOT, `${output}.${process.pid}`)
  const asc = [
    'exec',
    '--yes',
    `--package=${COMPILER}`,
    '--',
    'asc',
    source,
    `--outFile=${unfinished}`,
    ...OPTIONS,
  ]
  const { status } = spawnSync('npm', asc, { cwd: ROOT, stdio: 'inherit' })
  if (status !== 0) process.exit(1)
  appendFileSync(unfinished, customSection(origin))
  renameSync(unfinished, join(ROOT, output))
}

/**
 * What WebAssembly skips: the number 0, the length of the rest, a name with its length, and any
 * content.
 */
function customSection(content: string): Buffer {
  const lengths = [0, 1 + SECTION.length + content.length, SECTION.length]
  return Buffer.concat([Buffer.from(lengths), Buffer.from(`${SECTION}${content}`, 'latin1')])
}

/** What `customSection` holds in a kernel that was compiled here; undefined where there is none. */
function originOf(output: string): string | undefined {
  return existsSync(output) ? readFileSync(output, 'latin1').split(SECTION)[1] : undefined
}
