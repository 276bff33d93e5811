// Runs before every npm script (bin/run), under any Node from 20 on: installs the locked packages
// where they are absent or older than the lockfile, makes sure that the Node 26 among them runs,
// and has it compile what kernels changed. Plain JavaScript, no dependencies.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'

const NODE_MAJOR = 26
const INSTALLED = 'node_modules/.package-lock.json'

process.chdir(new URL('..', import.meta.url).pathname)

if (!existsSync(INSTALLED) || statSync(INSTALLED).mtimeMs < statSync('package-lock.json').mtimeMs) {
  console.log('Installing packages (npm ci)')
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'])
}

let node = spawnSync('node', ['--version'], { encoding: 'utf8' })
if (
  node.stderr?.includes('libatomic') &&
  process.getuid?.() === 0 &&
  existsSync('/usr/bin/apt-get')
) {
  console.log('Installing libatomic1, which Node 26 needs')
  run('apt-get', ['update', '-qq'])
  run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'libatomic1'])
  node = spawnSync('node', ['--version'], { encoding: 'utf8' })
}
if (node.status !== 0) fail(`Node ${NODE_MAJOR} from npm does not run here: ${node.stderr}`)
if (Number(node.stdout.slice(1).split('.')[0]) < NODE_MAJOR)
  fail(
    `npm has no Node ${NODE_MAJOR} for ${process.platform}-${process.arch}: install it yourself and try again`,
  )

run('node', ['scripts/build-kernels.ts'])

/** @param {string} command @param {string[]} args */
function run(command, args) {
  try {
    execFileSync(command, args, {
      stdio: 'inherit',
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
  } catch {
    fail(`\`${command} ${args.join(' ')}\` failed`)
  }
}

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(message)
  process.exit(1)
}
