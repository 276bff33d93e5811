import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { findFreePort } from '../../scripts/database/private-server.ts'
import { Database } from '../../src/db/database.ts'
import { MIGRATIONS } from '../../src/db/migrate.ts'
import type { Feature } from '../../src/feature.ts'
import { features } from '../../src/features/index.ts'
import { createEmptyDatabase } from '../support/database.ts'
import { useProcess } from '../support/process.ts'
import { hasValkey } from '../support/valkey.ts'

const run = promisify(execFile)
const names = readdirSync(MIGRATIONS).map((file) => file.replace('.ts', ''))

async function useEmptyDatabase() {
  const { url, drop } = await createEmptyDatabase()
  onTestFinished(drop)
  return url
}

describe('npm start', () => {
  test('migrates, adds examples, listens, and prints commands that work', async () => {
    const { output, printed, url } = useProcess('scripts/start.ts', {
      NODE_ENV: 'development',
      DATABASE_URL: await useEmptyDatabase(),
    })
    await url()
    await printed(/Ctrl-C/)
    expect(output()).toContain(`Migrated: ${names.join(', ')}\n`)
    // feature: products
    expect(output()).toContain('Added 1000 example products')
    // /feature
    expect(output()).toContain('Database: the one in DATABASE_URL')
    const commands = output().match(/^ {2}curl .*$/gm) ?? []
    const answers = await Promise.all(
      commands.map(async (command) =>
        JSON.parse((await run('sh', ['-c', `${command} -sf`])).stdout),
      ),
    )
    expect(answers).toMatchObject([
      { status: 'ok' },
      // feature: products
      { id: 1 },
      { items: [{ id: 1 }, {}, {}] },
      { price: '24.50' },
      // /feature
      // feature: primes
      { count: 107_126 },
      // /feature
    ])
    expect(output()).toMatch(/^Sign in, .*: http:\/\/localhost:\d+\/sign-in\?token=[\w-]{43}$/m)
  })

  test('has one key for its commands, which may no more than they take', async () => {
    const DATABASE_URL = await useEmptyDatabase()
    for (let start = 1; start <= 2; start++) {
      const { child, exitCode, url } = useProcess('scripts/start.ts', {
        NODE_ENV: 'development',
        DATABASE_URL,
      })
      await url()
      child.kill('SIGTERM')
      await exitCode
    }
    await using database = await Database.open({ url: DATABASE_URL, poolSize: 1 })
    const db = database.withSignal()
    const credentials = db.selectFrom('credential').select(['name', 'scopes'])
    const keys = await credentials.where('kind', '=', 'key').execute()
    const suggested = features.flatMap(({ suggestions = [] }: Feature) => suggestions)
    const scopes = suggested.flatMap(({ scope = [] }) => scope)
    const key = { name: 'npm start', scopes: JSON.stringify(scopes) }
    expect(keys).toEqual(scopes.length > 0 ? [key] : [])
  })

  test('signs nobody in and gives no key with NODE_ENV=production', async () => {
    const { output, printed, url } = useProcess('scripts/start.ts', {
      NODE_ENV: 'production',
      DATABASE_URL: await useEmptyDatabase(),
    })
    await url()
    await printed(/Ctrl-C/)
    expect(output()).not.toMatch(/sign-in|ofl_|undefined/)
  })

  test('stops at Ctrl-C, which npm passes on a second time', async () => {
    const { child, url, exitCode, output } = useProcess('scripts/start.ts', {
      DATABASE_URL: await useEmptyDatabase(),
    })
    await url()
    child.kill('SIGINT')
    child.kill('SIGINT')
    expect(await exitCode).toBe(0)
    expect(output()).toContain('stopped')
  })

  test.runIf(hasValkey)('-- --processes 2 starts a Valkey, and both processes', async () => {
    const { child, output, printed, exitCode } = useProcess(
      'scripts/start.ts',
      {
        DATABASE_URL: await useEmptyDatabase(),
        PORT: String(await findFreePort()),
        OPS_PORT: String(await findFreePort(2)),
      },
      [],
      undefined,
      ['--processes', '2'],
    )
    await printed(/Ctrl-C/)
    expect(output()).toMatch(/^Valkey: .*-server$/m)
    child.kill('SIGINT')
    expect(await exitCode).toBe(0)
    expect(output().match(/"msg":"stopped"/g)).toHaveLength(2)
  })

  test('adds nothing to a database that it has filled', async () => {
    const DATABASE_URL = await useEmptyDatabase()
    const first = useProcess('scripts/start.ts', { DATABASE_URL })
    await first.url()
    first.child.kill('SIGTERM')
    await first.exitCode
    const second = useProcess('scripts/start.ts', { DATABASE_URL })
    await second.url()
    expect(second.output()).not.toMatch(/Migrated|Added/)
  })

  test('refuses a database that is newer than the checkout, and leaves it alone', async () => {
    const DATABASE_URL = await useEmptyDatabase()
    const first = useProcess('scripts/migrate.ts', { DATABASE_URL })
    await first.exitCode
    {
      await using database = await Database.open({ url: DATABASE_URL, poolSize: 1 })
      const db = database.withSignal()
      await db.schema
        .createTable('kysely_migration')
        .addColumn('name', 'varchar(255)')
        .addColumn('timestamp', 'varchar(255)')
        .execute()
      await db
        .withTables<{ kysely_migration: { name: string; timestamp: string } }>()
        .insertInto('kysely_migration')
        .values({ name: '999-later', timestamp: '' })
        .execute()
    }
    const { exitCode, output } = useProcess('scripts/start.ts', { DATABASE_URL })
    expect(await exitCode).toBe(1)
    expect(output().trim()).toBe(
      'The database is newer than this checkout: it has 999-later. Check out the version that migrated it',
    )
  })
})

describe('npm run migrate', () => {
  test('goes up, lists and goes down', async () => {
    const DATABASE_URL = await useEmptyDatabase()
    const migrate = async (...args: string[]) => {
      const { stdout } = await run(process.execPath, ['scripts/migrate.ts', ...args], {
        env: { ...process.env, DATABASE_URL },
      })
      return stdout.trim()
    }
    const newest = names.at(-1)
    expect(await migrate('up')).toBe(names.map((name) => `Migrated: ${name}`).join('\n'))
    expect(await migrate('up')).toBe('Nothing to do')
    expect(await migrate('status')).toMatch(new RegExp(`^${names[0]} {2}\\d{4}-\\d\\d-\\d\\dT`))
    expect(await migrate('down')).toBe(`Undone: ${newest}`)
    expect((await migrate('status')).split('\n').at(-1)).toBe(`${newest}  pending`)
  })

  test('explains itself when it is not understood', async () => {
    const { exitCode, output } = useProcess('scripts/migrate.ts')
    expect(await exitCode).toBe(1)
    expect(output()).toMatch(/^Usage: npm run migrate up/)
  })
})
