import './load-env.ts'
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Db } from '../src/db/database.ts'
import { MIGRATIONS, migrationStatus } from '../src/db/migrate.ts'
import { AppError } from '../src/errors.ts'
import type { Feature } from '../src/feature.ts'
import { features } from '../src/features/index.ts'
import { hasLocalDatabase, onDatabase } from './database/local-database.ts'

/**
 * `npm run eject -- NAME… | --all`: removes example features whole. What belongs to one is:
 *
 * - each file with its name in its path, such as `src/features/NAME/` or `public/panels/NAME.js`;
 * - in any other file what stands between two comments `feature: NAME` and `/feature`, or below the
 *   first where there is no second; with several names it goes with the first of them;
 * - its line in `src/features/index.ts`, its migrations, and those helpers of tests and benches,
 *   pictures and npm packages that only it uses.
 */
const REGISTRY = 'src/features/index.ts'
const START = /^\s*(?:\/\/|#|<!--|\/\*)\s*feature: ([\w, -]+?)\s*(?:-->|\*\/)?$/
const END = /^\s*(?:\/\/|#|<!--|\/\*)\s*\/feature\s*(?:-->|\*\/)?$/
/** Not any quoted name: `'typescript'` is also a value of an example. */
const IMPORT = /(?:from |import |import\(|resolve\()['"]/.source
const HELPER = /^(?:test|bench)\/(?!.*\.test\.ts$).*\.ts$|^bench\/results\/|^docs\/.*\.png$/

process.chdir(join(import.meta.dirname, '..'))
const examples = features.filter(({ example }: Feature) => example) as readonly Feature[]
const names = examples.map(({ name }) => name)
const chosen = process.argv.includes('--all') ? names : process.argv.slice(2)

try {
  assertPossible()
  for (const { name, migrations = [] } of examples)
    if (chosen.includes(name)) await removeMigrations(name, migrations)
  removeCode()
  console.log('\nRead `git diff`, then commit. The next npm script installs the packages again.')
} catch (error) {
  if (!(error instanceof AppError)) throw error
  console.error(error.message)
  process.exitCode = 1
}

function assertPossible() {
  if (chosen.length === 0)
    throw new AppError(
      'bad_request',
      `Usage: npm run eject -- NAME… | --all, of ${names.join(', ')}`,
    )
  const unknown = chosen.filter((name) => !names.includes(name))
  if (unknown.length > 0)
    throw new AppError(
      'not_found',
      `No example is named ${unknown.join(', ')}: ${names.join(', ')}`,
    )
  if (git('status', '--porcelain') !== '')
    throw new AppError('conflict', 'The working tree has changes: commit or stash them first')
}

/**
 * Removes migrations that have run nowhere but in the examples' own database, where it undoes them.
 * If the database of DATABASE_URL has run them, it writes the next one instead, which undoes them.
 */
async function removeMigrations(feature: string, migrations: readonly string[]) {
  const executed =
    migrations.length > 0 && hasLocalDatabase()
      ? await onDatabase((db) => findExecuted(db, migrations))
      : []
  if (executed.length > 0 && process.env['DATABASE_URL']) return addUndoing(feature, executed)
  if (executed.length > 0) await onDatabase((db) => undo(db, executed))
  for (const name of migrations) remove(`migrations/${name}.ts`)
}

async function findExecuted(db: Db, migrations: readonly string[]): Promise<string[]> {
  return (await migrationStatus(db))
    .filter(({ name, executedAt }) => executedAt && migrations.includes(name))
    .map(({ name }) => name)
}

async function undo(db: Db, migrations: string[]) {
  for (const name of migrations.toReversed()) {
    const migration: { down(db: Db): Promise<void> } = await import(join(MIGRATIONS, `${name}.ts`))
    await migration.down(db)
    await db
      .withTables<{ kysely_migration: { name: string } }>()
      .deleteFrom('kysely_migration')
      .where('name', '=', name)
      .execute()
    console.log(`Undone in the local database: ${name}`)
  }
}

function addUndoing(feature: string, migrations: string[]) {
  const last = Math.max(...readdirSync(MIGRATIONS).map((file) => Number.parseInt(file, 10) || 0))
  const imports = migrations.map((name, at) => `import * as step${at} from './${name}.ts'`)
  const call = (direction: string) => (_: string, at: number) =>
    `  await step${at}.${direction}(db)`
  write(
    `migrations/${String(last + 1).padStart(3, '0')}-drop-${feature}.ts`,
    `import type { Kysely } from 'kysely'
${imports.join('\n')}

/** Drops what the feature ${feature} left in databases when its code was removed. */
export async function up(db: Kysely<unknown>): Promise<void> {
${migrations.map(call('down')).reverse().join('\n')}
}

export async function down(db: Kysely<unknown>): Promise<void> {
${migrations.map(call('up')).join('\n')}
}
`,
  )
}

function removeCode() {
  const left = features.map(({ name }: Feature) => name).filter((name) => !chosen.includes(name))
  const canGoOn = names.some((name) => left.includes(name))
  const gone = canGoOn ? chosen : [...chosen, 'eject']
  const before = readFiles()
  const benches = [...before.keys()].filter(
    (file) => isNamed(file, gone) && /\.(bench|threads)\.ts$/.test(file),
  )
  for (const [file, text] of before) {
    const withoutRows = removeResults(file === REGISTRY ? unregister(text) : text, benches)
    const rest = removeBlocks(withoutRows, (name) =>
      name === 'eject' ? canGoOn : left.includes(name),
    )
    if (isNamed(file, gone) || rest.trim() === '') remove(file)
    else if (rest !== text) write(file, rest)
  }
  removeHelpers(before)
  removePackages(before, canGoOn)
  execFileSync('biome', ['check', '--write', '--unsafe', '--log-level=error', '.'], {
    stdio: 'inherit',
  })
}

/** Every file of the project but the lockfiles, by its path. */
function readFiles(): Map<string, string> {
  const files = git('ls-files', '--cached', '--others', '--exclude-standard', '--deduplicate')
    .split('\n')
    .filter((file) => existsSync(file) && !file.endsWith('package-lock.json'))
  return new Map(files.map((file) => [file, readText(file)]))
}

/** What binary files say does not matter, only their names do. */
function readText(file: string): string {
  const text = readFileSync(file, 'utf8')
  return text.includes('\0') ? 'binary' : text
}

/** Whether a part of the path has one of the names as a word: `products-primes/` has two. */
function isNamed(file: string, gone: readonly string[]): boolean {
  const isMigration = file.startsWith('migrations/')
  return !isMigration && file.split(/[/.-]/).some((word) => gone.includes(word))
}

function removeBlocks(text: string, isLeft: (name: string) => boolean): string {
  let removing = false
  const lines = text.split('\n').filter((line) => {
    const [, marked] = START.exec(line) ?? []
    if (marked && !marked.split(', ').every(isLeft)) removing = true
    if (!removing) return true
    if (END.test(line)) removing = false
    return false
  })
  return lines.length === text.split('\n').length
    ? text
    : `${lines
        .join('\n')
        .replace(/\n{3,}/g, '\n\n')
        .trimEnd()}\n`
}

/**
 * Removes the rows of benches from the table of the README, which link to their results, and what
 * a `NAME.threads.ts` has measured, which is the property NAME of `threads.json`.
 */
function removeResults(text: string, benches: string[]): string {
  return benches.reduce((rest, file) => {
    const [name = ''] = basename(file).split('.')
    const row = `^\\|.*\\]\\(bench/results/${name}\\.json\\).*\n`
    const measured = `^ {2}"${name}": \\{\n[^]*?^ {2}\\},\n`
    return rest.replace(new RegExp(`${row}|${measured}`, 'gm'), '')
  }, text)
}

/** Takes the chosen features out of the array, and their imports out of the file. */
function unregister(text: string): string {
  return chosen.reduce((rest, name) => {
    const [line = '', id] =
      rest.match(new RegExp(`import \\{ (\\w+) \\} from './${name}/.*\n`)) ?? []
    return rest.replace(line, '').replace(new RegExp(`\\b${id}\\b,?\\s*`), '')
  }, text)
}

/** Removes helpers that were mentioned before and are not now, until there are no more of them. */
function removeHelpers(before: Map<string, string>) {
  const after = readFiles()
  const isMentioned = (file: string, texts: Map<string, string>) =>
    [...texts].some(([other, text]) => other !== file && text.includes(`/${basename(file)}`))
  const unused = [...after.keys()].filter(
    (file) => HELPER.test(file) && isMentioned(file, before) && !isMentioned(file, after),
  )
  for (const file of unused) remove(file)
  if (unused.length > 0) removeHelpers(after)
}

/** Removes dependencies that were imported before and are not now. */
function removePackages(before: Map<string, string>, canGoOn: boolean) {
  const after = readFiles()
  const isImported = (name: string, texts: Map<string, string>) =>
    [...texts].some(
      ([file, text]) =>
        !/\.(json|md)$/.test(file) &&
        new RegExp(`(?:${IMPORT}|node_modules/)${RegExp.escape(name)}['"/]`).test(text),
    )
  for (const file of [...after.keys()].filter((file) => basename(file) === 'package.json')) {
    const manifest = JSON.parse(readFileSync(file, 'utf8'))
    for (const list of [manifest.dependencies, manifest.devDependencies])
      for (const name of Object.keys(list ?? {})) {
        const used = name.replace('@types/', '')
        if (!isImported(used, before) || isImported(used, after)) continue
        delete list[name]
        console.log(`Removed the package ${name} from ${file}`)
      }
    if (!canGoOn) delete manifest.scripts?.eject
    const text = `${JSON.stringify(manifest, null, 2)}\n`
    if (text !== after.get(file)) write(file, text)
  }
  const npm = ['install', '--package-lock-only', '--ignore-scripts', '--no-audit', '--no-fund']
  execFileSync('npm', [...npm, '--prefer-offline', '--loglevel=error'], { stdio: 'inherit' })
}

function write(file: string, text: string) {
  console.log(`${existsSync(file) ? 'Changed' : 'Added'} ${file}`)
  writeFileSync(file, text)
}

function remove(file: string) {
  console.log(`Removed ${file}`)
  rmSync(file)
}

function git(...args: string[]): string {
  return execFileSync('git', args, { encoding: 'utf8' }).trim()
}
