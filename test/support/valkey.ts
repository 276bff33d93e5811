import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { onTestFinished } from 'vitest'
import { findValkey, VALKEY_OPTIONS } from '../../scripts/database/local-valkey.ts'
import { findFreePort } from '../../scripts/database/private-server.ts'
import { until } from './until.ts'

const PROGRAM = findValkey()

/** Tests of several processes need a Valkey or Redis on the machine. */
export const hasValkey = PROGRAM !== undefined

/** A Valkey of the test's own that it may stop and start again, killed at its end. */
export async function useValkey(port?: number) {
  const valkey = await startValkey(port)
  onTestFinished(() => valkey.send('SIGKILL'))
  return valkey
}

/** The same, for whoever kills it himself. */
export async function startValkey(wanted?: number) {
  const port = wanted ?? (await findFreePort())
  let valkey = await spawnValkey(port)
  return {
    url: `redis://127.0.0.1:${port}`,
    send: (signal: NodeJS.Signals): void => void valkey.kill(signal),
    /** On the same port, with nothing in it. */
    async restart() {
      valkey.kill('SIGKILL')
      if (valkey.exitCode === null && valkey.signalCode === null) await once(valkey, 'exit')
      valkey = await spawnValkey(port)
    },
  }
}

async function spawnValkey(port: number) {
  const args = ['--port', String(port), ...VALKEY_OPTIONS]
  const valkey = spawn(PROGRAM ?? '', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let log = ''
  valkey.stdout.on('data', (chunk) => {
    log += chunk
  })
  await until(() => /ready to accept/i.test(log), 'Valkey listens')
  return valkey
}
