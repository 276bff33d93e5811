import { spawn } from 'node:child_process'

/**
 * Runs a command that must not outlive whoever started this guard: `node guard.ts COMMAND ARGS…`.
 * When standard input ends, because the parent closed it, exited or was killed with -9, the command
 * gets SIGTERM.
 */
const [command = '', ...args] = process.argv.slice(2)
// A Ctrl-C in the terminal is for the parent, which decides when the command may go: neither it nor
// this guard hears it.
const child = spawn('sh', ['-c', `trap '' INT HUP; exec "$0" "$@"`, command, ...args], {
  stdio: 'ignore',
})
child.on('error', () => process.exit(127))
child.on('exit', (code) => process.exit(code ?? 1))

process.stdin
  .on('end', () => {
    child.kill('SIGTERM')
    // One that a killed test had stopped hears nothing until it goes on.
    child.kill('SIGCONT')
  })
  .resume()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
