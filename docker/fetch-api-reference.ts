import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { globSync, mkdirSync, readFileSync, rmSync } from 'node:fs'

/** Puts the one file that `/docs` serves (src/http/docs.ts) where npm would, at the version and the hash of the lockfile. */
const PACKAGE = '@scalar/api-reference'
const FILE = 'dist/browser/standalone.js'
const FOLDER = `node_modules/${PACKAGE}`

const { version, integrity } = JSON.parse(readFileSync('package-lock.json', 'utf8')).packages[FOLDER]
execFileSync('npm', ['pack', '--silent', '--ignore-scripts', `${PACKAGE}@${version}`], { stdio: ['ignore', 'ignore', 'inherit'] })
const [archive = ''] = globSync('*.tgz')
const hash = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`
if (hash !== integrity) throw new Error(`${PACKAGE} ${version} is ${hash}, but package-lock.json has ${integrity}`)

mkdirSync(FOLDER, { recursive: true })
execFileSync('tar', ['-xzf', archive, `--directory=${FOLDER}`, '--strip-components=1', `package/${FILE}`])
rmSync(archive)
