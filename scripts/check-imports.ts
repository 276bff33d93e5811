import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

/**
 * Part of `npm run check`: imports in `src/` go one way, main → web → app → features →
 * access → {http, db, realtime, ops} → leaves, and never from one feature to another.
 */
const SRC = join(import.meta.dirname, '../src')
const IMPORT = /(?:from|import)\s*\(?'([^']+)'/g

/** What each layer may import besides itself. */
const ALLOWED: Record<string, string[]> = {
  main: ['web', 'features', 'feature', 'access', 'http', 'db', 'realtime', 'ops', 'leaf'],
  web: ['app', 'feature', 'access', 'http', 'db', 'realtime', 'ops', 'leaf'],
  app: ['feature', 'access', 'http', 'db', 'realtime', 'ops', 'leaf'],
  features: ['a feature'],
  'a feature': ['feature', 'access', 'http', 'db', 'realtime', 'ops', 'leaf'],
  feature: ['access', 'http', 'db', 'realtime', 'ops', 'leaf'],
  access: ['http', 'db', 'realtime', 'leaf'],
  ops: ['http', 'db', 'realtime', 'leaf'],
  http: ['realtime', 'leaf'],
  db: ['leaf'],
  realtime: ['leaf'],
  thread: [],
  leaf: [],
}

const wrong = globSync('**/*.ts', { cwd: SRC }).flatMap((file) =>
  findImports(file)
    .filter((imported) => !isAllowed(file, imported))
    .map((imported) => `src/${file} may not import src/${imported}`),
)
const PACKAGES = join(SRC, '../packages')
for (const file of globSync('*/*.ts', { cwd: PACKAGES }))
  for (const [, path] of readFileSync(join(PACKAGES, file), 'utf8').matchAll(IMPORT))
    if (path?.startsWith('..') || path?.startsWith('@offloop/'))
      wrong.push(`packages/${file} may not import ${path}: a package knows nothing of the rest`)
for (const line of wrong) console.error(line)
process.exitCode = wrong.length > 0 ? 1 : 0

function findImports(file: string): string[] {
  const text = readFileSync(join(SRC, file), 'utf8')
  return [...text.matchAll(IMPORT)].flatMap(([, path = '']) =>
    path.startsWith('.') ? relative(SRC, join(SRC, dirname(file), path)) : [],
  )
}

function isAllowed(file: string, imported: string): boolean {
  const [from, to] = [toLayer(file), toLayer(imported)]
  if (from === 'a feature' && to === from) return dirname(file) === dirname(imported)
  return from === to || ALLOWED[from]?.includes(to) === true
}

/** Files beside `main.ts` without a line of their own are leaves. */
function toLayer(file: string): string {
  const [folder = '', ...names] = file.split('/')
  if (folder === 'features') return names.length > 1 ? 'a feature' : 'features'
  const layer = folder.replace('.ts', '')
  return names.length > 0 || layer in ALLOWED ? layer : 'leaf'
}
