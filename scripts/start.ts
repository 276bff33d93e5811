import './load-env.ts'
import type { Feature } from '../src/feature.ts'
import { features } from '../src/features/index.ts'
import { openService } from '../src/main.ts'
import { runService, type Service } from '../src/shutdown.ts'
import { type LocalDatabase, openLocalDatabase } from './database/local-database.ts'
import { prepareDatabase } from './prepare-database.ts'

/**
 * `npm start`: a database, its schema, some examples in it, and the service on top; Ctrl-C ends all
 * of it.
 */
let database: LocalDatabase | undefined

const code = await runService(
  async () => {
    database = await openLocalDatabase()
    await prepareDatabase(database.url)
    return openService(
      {
        // feature: primes
        DEMO_INLINE: 'true',
        // /feature
        ...process.env,
        DATABASE_URL: database.url,
      },
      features,
    )
  },
  (service) => console.log(welcome(service)),
)
await database?.stop()
process.exit(code)

function welcome({ url }: Service) {
  const suggestions = features.flatMap(({ suggestions = [] }: Feature) => suggestions)
  const commands = ['$URL/health/ready', ...suggestions].map(
    (suggestion) => `  curl ${suggestion.replace('$URL', url)}`,
  )
  return `
offloop runs on ${url}
Database: ${database?.label}

Worth trying:
${commands.join('\n')}

The API to read and try: ${url}/docs
Ctrl-C stops it all; the data stays.
`
}
