import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/**
 * `npm run rename -- my-shop-api` gives a clone its own name: package, database, image, page, log
 * and documents. The packages keep theirs, which later releases replace whole, and so do the
 * licence and the changelog, which say where the code came from.
 */
const ROOT = join(import.meta.dirname, '..')
/** MySQL allows 32 characters in the name of a user. */
const NAME = /^[a-z][a-z0-9-]{0,30}[a-z0-9]$/
const KEPT = ['packages', 'LICENSE', 'CHANGELOG.md', 'node_modules', '.git', '.data', '.env']
const IMAGES = /\.(png|wasm|ico)$/

const [name = ''] = process.argv.slice(2)
const { name: current } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

if (!NAME.test(name)) {
  console.error(
    `Expected a name in lower case of at most 32 letters, digits and dashes, got "${name}"`,
  )
  process.exitCode = 1
} else {
  const changed = globSync(['**/*', '**/.*', '.*/**/*'], {
    cwd: ROOT,
    exclude: (path) => KEPT.includes(basename(path)),
  })
    .filter((file) => !IMAGES.test(file))
    .filter((file) => renameIn(join(ROOT, file)))
  console.log(`${changed.map((file) => `  ${file}`).join('\n')}

${current} is ${name} now, in ${changed.length} files. What is left to you: the first lines of README.md, LICENSE and
CHANGELOG.md, which name the authors of the template, and the old database in .data, if there is one.`)
}

/** Replaces the name wherever it is no scope of a package, and says whether it was there. */
function renameIn(path: string): boolean {
  const text = readText(path)
  const renamed = text.replace(new RegExp(`(?<!@)${current}`, 'g'), name)
  if (renamed === text) return false
  writeFileSync(path, renamed)
  return true
}

/** Of a folder: nothing. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
