import { spawnSync } from 'node:child_process'

/**
 * `npm run check`: runs every tool, whether or not an earlier one failed, and names at the end
 * those that did.
 */
const TOOLS = [
  'tsc --noEmit',
  'tsc -p tsconfig.page.json',
  'biome check',
  'node scripts/check-imports.ts',
  'node scripts/check-manifests.ts',
  'knip',
]

const failed = TOOLS.filter((tool) => {
  console.log(`\n$ ${tool}`)
  const [command = '', ...args] = tool.split(' ')
  return spawnSync(command, args, { stdio: 'inherit' }).status !== 0
})
console.log(failed.length > 0 ? `\nFailed: ${failed.join(', ')}` : '\nAll passed')
if (failed.includes('biome check'))
  console.log('`npm run fix` formats, and repairs what Biome can repair')
process.exitCode = failed.length > 0 ? 1 : 0
