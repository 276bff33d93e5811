import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { createEmptyDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

const ROOT = join(import.meta.dirname, '../..')
/** Starts and restarts take a while on a busy machine. */
const START_TIMEOUT_MS = 30_000

const MIGRATION = 'export async function up() {}\nexport async function down() {}\n'

/**
 * A copy of the project, because a migration more would be missing from the databases of tests that
 * run meanwhile.
 */
function useProject(env: NodeJS.ProcessEnv) {
  const folder = mkdtempSync(join(tmpdir(), 'offloop-dev-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  for (const name of ['package.json', 'src', 'packages', 'scripts', 'migrations', 'public'])
    cpSync(join(ROOT, name), join(folder, name), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  return {
    addMigration: (name: string) =>
      writeFileSync(join(folder, 'migrations', `${name}.ts`), MIGRATION),
    start(script: string, ...args: string[]) {
      const child = spawn(process.execPath, [join(folder, 'scripts', script), ...args], {
        cwd: folder,
        env: {
          PATH: process.env['PATH'],
          PORT: '0',
          OPS_PORT: 'off',
          COMPUTE_THREADS: '1',
          ...env,
        },
      })
      let output = ''
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (chunk) => (output += chunk))
      return {
        child,
        output: () => output,
        exitCode: once(child, 'close').then(([code]) => code as number | null),
      }
    },
  }
}

test('says where the service runs, waits for a migration that is pending, and goes on by itself once it ran', async () => {
  const { url: DATABASE_URL, drop } = await createEmptyDatabase()
  const { start, addMigration } = useProject({ DATABASE_URL })
  const { child, output, exitCode } = start('dev.ts')
  onTestFinished(async () => {
    child.kill('SIGINT')
    expect(await exitCode).toBe(0)
    await drop()
  })
  const runs = () => output().match(/^offloop runs on http:\/\/localhost:\d+$/gm)?.length ?? 0
  await until(() => runs() === 1, 'it says where it runs', START_TIMEOUT_MS)
  expect(output()).toContain('Database: the one in DATABASE_URL')
  expect(output()).toMatch(/^Sign in, .*: http:\/\/localhost:\d+\/sign-in\?token=[\w-]{43}$/m)

  addMigration('999-thing')
  const pending =
    'The database lacks 999-thing: run `npm run migrate up` first. The service starts once this is solved'
  await until(() => output().includes(pending), 'it names the pending migration', START_TIMEOUT_MS)
  expect(runs()).toBe(1)

  const migrate = start('migrate.ts', 'up')
  expect([await migrate.exitCode, migrate.output()]).toEqual([0, 'Migrated: 999-thing\n'])
  await until(() => runs() === 2, 'it runs again', START_TIMEOUT_MS)
}, 120_000)

test('says in one line that the database cannot be reached', async () => {
  const { output, exitCode } = useProject({
    DATABASE_URL: 'mysql://user:secret@127.0.0.1:1/shop',
  }).start('dev.ts')
  expect(await exitCode).toBe(1)
  expect(output()).toMatch(/^Cannot use the database 127\.0\.0\.1:1\/shop: .*ECONNREFUSED.*\n$/)
})
