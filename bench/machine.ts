import { readFileSync } from 'node:fs'
import { arch, availableParallelism, cpus, platform, totalmem } from 'node:os'

const PACKAGES = ['hono', '@hono/node-server', 'mysql2', 'kysely', 'autocannon']

/** What the figures depend on. Nothing that says whose machine it is. */
export const machine = {
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: availableParallelism(),
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  platform: `${platform()} ${arch()}`,
}

export const versions = {
  node: process.version,
  ...Object.fromEntries(PACKAGES.map((name) => [name, versionOf(name)])),
}

function versionOf(name: string): string {
  const file = new URL(`../node_modules/${name}/package.json`, import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}
