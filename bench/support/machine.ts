import { readFileSync } from 'node:fs'
import { arch, availableParallelism, cpus, platform, totalmem } from 'node:os'

/** What the figures depend on. Nothing that says whose machine it is. */
export const machine = {
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: availableParallelism(),
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  platform: `${platform()} ${arch()}`,
}

/** The versions of Node and of some packages. */
export const readVersions = (packages: readonly string[]): Record<string, string> => ({
  node: process.version,
  ...Object.fromEntries(packages.map((name) => [name, readVersion(name)])),
})

function readVersion(name: string): string {
  const file = new URL(`../../node_modules/${name}/package.json`, import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}
