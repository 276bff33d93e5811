import { Database } from '../src/db/database.ts'
import { migrateUp } from '../src/db/migrate.ts'
import { seedProducts } from '../src/features/products/seed.ts'
import { openService } from '../src/main.ts'
import { runService, type Service } from '../src/service.ts'
import { type LocalDatabase, openLocalDatabase } from './database/local-database.ts'

/** `npm start`: a database, its schema, some examples in it, and the service on top; Ctrl-C ends all of it. */
let database: LocalDatabase | undefined

const code = await runService(
  async () => {
    database = await openLocalDatabase()
    await prepare(database.url)
    return openService({ DEMO_INLINE: 'true', ...process.env, DATABASE_URL: database.url })
  },
  (service) => console.log(welcome(service)),
)
await database?.stop()
process.exit(code)

async function prepare(url: string) {
  await using pool = await Database.open({ url, poolSize: 1 })
  const db = pool.withSignal()
  const migrations = await migrateUp(db)
  if (migrations.length > 0) console.log(`Migrated: ${migrations.join(', ')}`)
  const seeded = await seedProducts(db)
  if (seeded > 0) console.log(`Added ${seeded} example products`)
}

function welcome({ url }: Service) {
  return `
offloop runs on ${url}
Database: ${database?.label}

Worth trying:
  curl ${url}/v1/products/1
  curl '${url}/v1/products?limit=3'
  curl ${url}/v1/products -H 'content-type: application/json' -d '{"name":"Teapot ${Date.now()}","price":"24.50","stock":3}'
  curl '${url}/v1/primes?to=1400000'

The API to read and try: ${url}/docs
Ctrl-C stops it all; the data stays.
`
}
