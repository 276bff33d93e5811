import { spawn } from 'node:child_process'

/**
 * `node guard.ts COMMAND ARGS…` runs a command that must not outlive its parent process: when
 * standard input ends, even because the parent was killed with -9, the command gets SIGTERM.
 */
const [command = '', ...args] = process.argv.slice(2)
// Ctrl-C in the terminal is for the parent alone, which decides when the command ends.
const child = spawn('sh', ['-c', `trap '' INT HUP; exec "$0" "$@"`, command, ...args], {
  stdio: 'ignore',
})
child.on('error', () => process.exit(127))
child.on('exit', (code) => process.exit(code ?? 1))

process.stdin
  .on('end', () => {
    child.kill('SIGTERM')
    // A process that SIGSTOP has stopped handles no signal before it.
    child.kill('SIGCONT')
  })
  .resume()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
