import '../scripts/load-env.ts'
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Bench, Findings } from './support/bench.ts'
import { rejectOnInterrupt } from './support/child.ts'
import { machine, readVersions } from './support/machine.ts'
import { Progress } from './support/progress.ts'
import { formatTable } from './support/table.ts'

/**
 * `npm run bench -- NAME…`: each name is a file `NAME.bench.ts`. Without `--save` the results go to
 * `.data`; with it they replace `bench/results` and the table in the README.
 */
const MAIN = ['connections', 'light']
const TABLE_START = '<!-- bench -->'
const TABLE_END = '<!-- /bench -->'
const RESULTS = join(import.meta.dirname, 'results')
const README = join(import.meta.dirname, '../README.md')

const files = Object.fromEntries(
  globSync('*/*.bench.ts', { cwd: import.meta.dirname })
    .map((file) => [basename(file, '.bench.ts'), file] as const)
    .sort(([a], [b]) => order(a) - order(b) || a.localeCompare(b)),
)
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    help: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    /** Measures nothing: fills the table from the results whose bench is there. */
    table: { type: 'boolean', default: false },
  },
})
const unknown = positionals.filter((name) => !files[name])

if (options.help || unknown.length > 0) {
  if (unknown.length > 0) console.error(`There is no ${unknown.join(', ')}\n`)
  console.log(await describeUsage())
  process.exitCode = unknown.length > 0 ? 1 : 0
} else {
  if (!options.table) await runAll(positionals.length > 0 ? positionals : MAIN.filter(isThere))
  if (options.table || options.save) {
    removeOldResults()
    writeFileSync(README, await fillTable())
  }
}

/** The main ones first. */
function order(name: string) {
  return MAIN.includes(name) ? MAIN.indexOf(name) : MAIN.length
}

function isThere(name: string) {
  return files[name] !== undefined
}

async function describeUsage(): Promise<string> {
  const rows = [['name', 'what it measures']]
  for (const name of Object.keys(files)) rows.push([name, (await load(name)).description])
  const width = Math.max(...rows.map(([name = '']) => name.length))
  const list = rows.map(([name = '', what]) => `  ${name.padEnd(width)}  ${what}`)
  return `npm run bench -- [--quick] [--save] [NAME…], by default ${MAIN.join(' and ')}\n\n${list.join('\n')}`
}

async function load(name: string): Promise<Bench> {
  return (await import(join(import.meta.dirname, files[name] ?? ''))).bench
}

async function runAll(names: string[]) {
  console.log(
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB · Node ${process.version}`,
  )
  for (const name of names) {
    const bench = await load(name)
    await using started = new AsyncDisposableStack()
    const progress = new Progress()
    const running = bench.run({ started, progress, quick: options.quick })
    const findings = await Promise.race([running, rejectOnInterrupt()])
    progress.end()
    print(findings)
    save(name, bench, findings)
  }
}

function print({ tables, targets = tables.flatMap(({ targets = [] }) => targets) }: Findings) {
  for (const { title, rows } of tables) console.log(`\n${title}\n${formatTable(rows)}`)
  if (targets.length > 0) console.log(`\n${formatTable(targets)}`)
}

/** JSON with one line for each row, so that a difference between two runs can be read. */
function save(name: string, { packages }: Bench, { figures, targets, files = {} }: Findings) {
  const { versions, ...rest } = { versions: {}, ...figures }
  const results = {
    measuredAt: new Date().toISOString(),
    machine,
    versions: { ...readVersions(packages), ...versions },
    ...rest,
    ...(targets && { targets }),
  }
  const folder = options.save ? RESULTS : join(import.meta.dirname, '../.data/bench/results')
  mkdirSync(folder, { recursive: true })
  for (const [file, content] of Object.entries({ [`${name}.json`]: toJson(results), ...files })) {
    writeFileSync(join(folder, file), content)
    console.error(`Wrote ${join(folder, file)}`)
  }
}

/** Numbers have at most three digits after the point. */
function toJson(results: object): string {
  const line = (value: unknown) =>
    JSON.stringify(value, (_, each) =>
      typeof each === 'number' ? Math.round(each * 1_000) / 1_000 : each,
    )
  const block = (value: unknown, indent: string): string => {
    if (Array.isArray(value) && value.some((item) => typeof item === 'object'))
      return `[\n${value.map((item) => `${indent}  ${line(item)}`).join(',\n')}\n${indent}]`
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return line(value)
    if (!Object.values(value).some((part) => typeof part === 'object')) return line(value)
    const parts = Object.entries(value).map(
      ([key, part]) => `${indent}  ${JSON.stringify(key)}: ${block(part, `${indent}  `)}`,
    )
    return `{\n${parts.join(',\n')}\n${indent}}`
  }
  return `${block(results, '')}\n`
}

/** Those of benches that are gone. */
function removeOldResults() {
  for (const file of globSync('*', { cwd: RESULTS }))
    if (!files[file.replace(/\.\w+$/, '')]) rmSync(join(RESULTS, file))
}

/** The README with the table filled from all results that there are. */
async function fillTable(): Promise<string> {
  const rows: string[][] = []
  for (const name of Object.keys(files)) {
    const bench = await load(name)
    const [file] = globSync(`${name}.json`, { cwd: RESULTS })
    if (!file || !bench.summarise) continue
    const figures = JSON.parse(readFileSync(join(RESULTS, file), 'utf8'))
    for (const [what, figure, beside] of bench.summarise(figures))
      rows.push([`[${name}](bench/results/${file})`, what, figure, beside])
  }
  const head = ['`npm run bench --` …', 'what', 'figure', 'beside']
  const table = [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`)
  const readme = readFileSync(README, 'utf8')
  const [start, end] = [readme.indexOf(TABLE_START), readme.indexOf(TABLE_END)]
  if (start < 0 || end < start)
    throw new Error(`Expected ${TABLE_START} … ${TABLE_END} in README.md`)
  return `${readme.slice(0, start)}${TABLE_START}\n${table.join('\n')}\n${readme.slice(end)}`
}
