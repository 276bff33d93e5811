import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

/**
 * Part of `npm run check`: imports in `src/` go one way, main → app → features → {db, compute,
 * jobs, realtime} → leaves. Whoever adds a folder says here what it may use.
 */
const SRC = join(import.meta.dirname, '../src')

/**
 * What each layer may import besides itself. A feature is a layer of its own: none may import
 * another.
 */
const MAY_IMPORT: Record<string, string[]> = {
  leaf: [],
  http: ['realtime', 'leaf'],
  db: ['leaf'],
  realtime: ['leaf'],
  ops: ['http', 'db', 'realtime', 'leaf'],
  thread: [],
  feature: ['db', 'realtime', 'leaf'],
  routes: ['feature', 'http', 'db', 'realtime', 'leaf'],
  registry: ['feature', 'routes', 'ops', 'db', 'realtime', 'leaf'],
  app: ['registry', 'http', 'ops', 'leaf'],
  main: ['app', 'registry', 'http', 'db', 'realtime', 'ops', 'leaf'],
}

const LEAVES = [
  'config.ts',
  'errors.ts',
  'log.ts',
  'paging.ts',
  'schemas.ts',
  'service.ts',
  'timers.ts',
  'timestamp.ts',
]

const wrong = globSync('**/*.ts', { cwd: SRC }).flatMap((file) =>
  importsOf(file)
    .filter((imported) => !isAllowed(file, imported))
    .map((imported) => `src/${file} may not import src/${imported}`),
)
for (const line of wrong) console.error(line)
process.exitCode = wrong.length > 0 ? 1 : 0

function importsOf(file: string): string[] {
  const text = readFileSync(join(SRC, file), 'utf8')
  return [...text.matchAll(/(?:from|import)\s*\(?'(\.[^']+)'/g)].map(([, path = '']) =>
    relative(SRC, join(SRC, dirname(file), path)),
  )
}

function isAllowed(file: string, imported: string): boolean {
  const [from, to] = [layerOf(file), layerOf(imported)]
  if (from === to || (to === 'feature' && from === 'routes'))
    return featureOf(file) === featureOf(imported)
  return MAY_IMPORT[from]?.includes(to) ?? false
}

function layerOf(file: string): string {
  if (LEAVES.includes(file)) return 'leaf'
  if (file === 'features/index.ts') return 'registry'
  if (file.startsWith('features/')) return file.endsWith('/routes.ts') ? 'routes' : 'feature'
  return file.split('/')[0]?.replace('.ts', '') ?? ''
}

function featureOf(file: string) {
  return file.startsWith('features/') ? file.split('/')[1] : undefined
}
