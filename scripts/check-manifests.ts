import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { loadConfig } from '../src/config.ts'

/**
 * Part of `npm run check`: the Kubernetes manifests in `deploy/`, or in the folder that is named, fit
 * the types of Kubernetes and KEDA without an unknown field, give the service only settings that it
 * takes, and leave it the time to drain.
 */
const ROOT = join(import.meta.dirname, '..')
const FOLDER = process.argv[2] ?? join(ROOT, 'deploy')
const CACHE = join(ROOT, 'node_modules/.cache')
/** The name that `kustomization.yaml` replaces. */
const IMAGE = 'offloop'
const KUSTOMIZATION = 'kustomization.yaml'
const EXAMPLE = 'secret.example.yaml'
const EXAMPLE_SETTINGS = { DATABASE_URL: 'mysql://user:password@host:3306/offloop' }

interface Container {
  image: string
  env?: { name: string; value?: string }[]
  envFrom?: { configMapRef?: { name: string }; secretRef?: { name: string } }[]
}

interface PodSpec {
  containers: Container[]
  terminationGracePeriodSeconds?: number
}

interface Manifest {
  file: string
  apiVersion: string
  kind: string
  metadata: { name: string }
  data?: Record<string, string>
  stringData?: Record<string, string>
  resources?: string[]
  spec?: { template?: { spec: PodSpec } }
}

const files = readdirSync(FOLDER).filter((file) => file.endsWith('.yaml'))
const all = files.flatMap(readManifests)
const manifests = all.filter(({ file }) => file !== KUSTOMIZATION)
const pods = manifests.flatMap((manifest) => {
  const spec = manifest.spec?.template?.spec
  return spec?.containers.some(({ image }) => image === IMAGE) ? [{ manifest, spec }] : []
})
const problems = [...findUnlisted(), ...pods.flatMap(findBadSettings), ...findBadTypes()]
for (const problem of problems) console.error(problem)
process.exitCode = problems.length > 0 ? 1 : 0

function readManifests(file: string): Manifest[] {
  return parseAllDocuments(readFileSync(join(FOLDER, file), 'utf8')).map((document) => {
    const [error] = document.errors
    if (error) throw new Error(`deploy/${file}: ${error.message}`)
    return { file, ...document.toJS() }
  })
}

function name({ file, kind, metadata }: Manifest) {
  return `deploy/${file}, ${kind} ${metadata.name}`
}

function findUnlisted(): string[] {
  const { resources = [] } = all.find(({ file }) => file === KUSTOMIZATION) ?? {}
  const others = files.filter((file) => ![KUSTOMIZATION, EXAMPLE].includes(file))
  return [
    ...others.filter((file) => !resources.includes(file)).map((file) => `does not list ${file}`),
    ...resources
      .filter((file) => !others.includes(file))
      .map((file) => `lists ${file}, a file that is missing`),
  ].map((problem) => `deploy/${KUSTOMIZATION} ${problem}`)
}

function findBadSettings({ manifest, spec }: { manifest: Manifest; spec: PodSpec }): string[] {
  const known = readFileSync(join(ROOT, '.env.example'), 'utf8').match(/(?<=^#?)[A-Z_0-9]+(?==)/gm)
  return spec.containers.flatMap((container) => {
    const settings = findSettings(container)
    const unknown = Object.keys(settings).filter((setting) => !known?.includes(setting))
    const found = unknown.map((setting) => `${setting} is no setting of .env.example`)
    try {
      const { drainDelayMs, drainTimeoutMs } = loadConfig({ ...settings, ...EXAMPLE_SETTINGS }).http
      const neededMs = drainDelayMs + drainTimeoutMs
      const graceMs = (spec.terminationGracePeriodSeconds ?? 30) * 1_000
      if (manifest.kind === 'Deployment' && graceMs <= neededMs)
        found.push(
          'terminationGracePeriodSeconds must exceed DRAIN_DELAY_MS and DRAIN_TIMEOUT_MS ' +
            `together, ${neededMs} ms, and is ${graceMs} ms`,
        )
    } catch (error) {
      found.push(String(error))
    }
    return found.map((problem) => `${name(manifest)}: ${problem}`)
  })
}

function findSettings({ env = [], envFrom = [] }: Container): Record<string, string> {
  const maps = envFrom.map(({ configMapRef, secretRef }) => {
    const kind = configMapRef ? 'ConfigMap' : 'Secret'
    const wanted = (configMapRef ?? secretRef)?.name
    const found = manifests.find((one) => one.kind === kind && one.metadata.name === wanted)
    return found ? { ...found.data, ...found.stringData } : { [`${kind} ${wanted}`]: '' }
  })
  return Object.assign({}, ...maps, ...env.map(({ name, value = '' }) => ({ [name]: value })))
}

/** By TypeScript, which refuses unknown properties; JSON schemas of Kubernetes allow them. */
function findBadTypes(): string[] {
  mkdirSync(CACHE, { recursive: true })
  const folder = mkdtempSync(join(CACHE, 'manifests-'))
  try {
    const sources = manifests.map((manifest, index) => {
      const source = join(folder, `${index}.ts`)
      writeFileSync(source, toTypeScript(manifest))
      return source
    })
    const flags = ['--noEmit', '--strict', '--skipLibCheck', '--pretty', 'false', '--ignoreConfig']
    const modules = ['--module', 'nodenext', '--target', 'esnext']
    const { stdout, status } = spawnSync('tsc', [...flags, ...modules, ...sources], {
      encoding: 'utf8',
    })
    const errors = [...stdout.matchAll(/(\d+)\.ts\((\d+),\d+\): error \w+: (.*)/g)]
    if (status !== 0 && errors.length === 0) return [`tsc exits with ${status}: ${stdout}`]
    return errors.map(([, index = '', line = '', message]) => {
      const manifest = manifests[Number(index)] as Manifest
      const text = toTypeScript(manifest).split('\n')[Number(line) - 1]?.trim()
      return `${name(manifest)}, at ${text} ${message}`
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function toTypeScript({ file: _, ...manifest }: Manifest): string {
  const { apiVersion, kind } = manifest
  const library = apiVersion.includes('keda.sh') ? '@kubernetes-models/keda' : 'kubernetes-models'
  return `import type { I${kind} } from '${library}/${apiVersion}'
export const manifest: I${kind} = ${JSON.stringify(manifest, null, 2)}
`
}
