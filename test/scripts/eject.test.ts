import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, delimiter, join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Database } from '../../src/db/database.ts'
import { migrateUp } from '../../src/db/migrate.ts'
import type { Feature } from '../../src/feature.ts'
import { features } from '../../src/features/index.ts'
import { createEmptyDatabase } from '../support/database.ts'
import { canOwnServer } from '../support/own-server.ts'

const ROOT = join(import.meta.dirname, '../..')
const CHECKS = ['node scripts/check.ts', 'vitest run test/docs.test.ts']
/** Knip's hints at what `knip.jsonc` has of an example. */
const LEFT_IN_KNIP = /from ignoreBinaries|\(no matches\)/
const TIMEOUT_MS = 180_000

const examples = features.filter(({ example }: Feature) => example) as readonly Feature[]
const names = examples.map(({ name }) => name)
const migrating = examples.find(({ migrations = [] }) => migrations.length > 0)

/** A copy of the project that is committed to a repository of its own. */
function useClone() {
  const folder = mkdtempSync(join(tmpdir(), 'eject-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const left = ['node_modules', '.git', '.data', '.env']
  cpSync(ROOT, folder, { recursive: true, filter: (path) => !left.includes(basename(path)) })
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  const { DATABASE_URL: _, ...inherited } = process.env
  const run = (command: string, settings: NodeJS.ProcessEnv = {}) => {
    const PATH = [join(ROOT, 'node_modules/.bin'), process.env['PATH']].join(delimiter)
    const env = { ...inherited, ...settings, PATH }
    const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
      cwd: folder,
      env,
      encoding: 'utf8',
    })
    return { status, output: stdout + stderr }
  }
  const commit = 'git add -A && git -c user.name=test -c user.email=test@localhost commit -qm test'
  expect(run(`git init -q && echo node_modules >>.git/info/exclude && ${commit}`).output).toBe('')
  const files = () =>
    run('git ls-files -co --exclude-standard --deduplicate')
      .output.trim()
      .split('\n')
      .filter((file) => existsSync(join(folder, file)))
  return { folder, run, commit, files }
}

describe('npm run eject', () => {
  test.each([...names, '--all'])(
    '%s leaves nothing behind, and the checks pass',
    async (argument) => {
      const { folder, run, files } = useClone()
      const { url, drop } = await createEmptyDatabase()
      onTestFinished(drop)
      const { status, output } = run(`node scripts/eject.ts ${argument}`, { DATABASE_URL: url })
      expect([status, output]).toEqual([0, expect.stringContaining('Read `git diff`')])

      const ejected = argument === '--all' ? names : [argument]
      const gone = examples.filter(({ name }) => ejected.includes(name))
      const dropped = gone.flatMap(({ migrations = [] }) => migrations)
      const mention = new RegExp(
        [`/(${ejected.join('|')})\\b`, `['"\`](${ejected.join('|')})['"\`]`, ...dropped].join('|'),
      )
      const left = files().filter((file) => {
        if (file === 'CHANGELOG.md') return false
        return mention.test(`/${file}`) || mention.test(readFileSync(join(folder, file), 'utf8'))
      })
      expect(left).toEqual([])
      const { devDependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
      for (const tool of ['typescript', '@biomejs/biome', 'knip', 'vitest'])
        expect(devDependencies).toHaveProperty([tool])
      for (const check of CHECKS)
        expect([check, run(check, { DATABASE_URL: url })]).toEqual([
          check,
          { status: 0, output: expect.not.stringMatching(LEFT_IN_KNIP) },
        ])
    },
    TIMEOUT_MS,
  )

  test(
    'refuses what is no example, and a working tree with changes',
    () => {
      const { folder, run } = useClone()
      expect(run('node scripts/eject.ts nothing')).toMatchObject({
        status: 1,
        output: expect.stringContaining('No example is named nothing'),
      })
      expect(run('node scripts/eject.ts')).toMatchObject({
        status: 1,
        output: expect.stringContaining('Usage'),
      })
      writeFileSync(join(folder, 'note.txt'), 'mine')
      expect(run('node scripts/eject.ts --all')).toEqual({
        status: 1,
        output: 'The working tree has changes: commit or stash them first\n',
      })
    },
    TIMEOUT_MS,
  )

  test(
    'drops the tables by the next migration where another database has them',
    async () => {
      const { folder, run, files } = useClone()
      const { url, drop } = await createEmptyDatabase()
      onTestFinished(drop)
      await using database = await Database.open({ url, poolSize: 2 })
      const before = await migrateUp(database.withSignal())
      expect(run(`node scripts/eject.ts ${migrating?.name}`, { DATABASE_URL: url }).status).toBe(0)
      expect(files()).toEqual(expect.arrayContaining(before.map((name) => `migrations/${name}.ts`)))
      const [added] = await migrateUp(database.withSignal(), join(folder, 'migrations'))
      expect(added).toMatch(new RegExp(`-drop-${migrating?.name}$`))
      const tables = await database.withSignal().introspection.getTables()
      expect(readdirSync(join(folder, 'migrations')).length).toBe(before.length + 1)
      expect(tables.map(({ name }) => name)).not.toContain(migrating?.name.replace(/s$/, ''))
    },
    TIMEOUT_MS,
  )

  test.runIf(canOwnServer)(
    'undoes the migrations in the local database',
    () => {
      const { run } = useClone()
      expect(run('node scripts/migrate.ts up').status).toBe(0)
      const { output } = run(`node scripts/eject.ts ${migrating?.name}`)
      for (const name of migrating?.migrations ?? [])
        expect(output).toContain(`Undone in the local database: ${name}`)
      expect(run('node scripts/migrate.ts up')).toEqual({ status: 0, output: 'Nothing to do\n' })
    },
    TIMEOUT_MS,
  )
})
