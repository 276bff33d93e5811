import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Longer than the service's own drain. */
const STOP_TIMEOUT_MS = 15_000

/** The next message of a child. @throws Error when it ends instead, or the time is up. */
export async function nextMessage<Message>(
  child: ChildProcess,
  timeoutMs: number,
): Promise<Message> {
  const [message] = await orEnd(child, once(child, 'message'), timeoutMs)
  return message as Message
}

/** Resolves as `wanted` does. @throws Error when the child ends instead, or the time is up. */
export async function orEnd<Wanted>(
  child: ChildProcess,
  wanted: Promise<Wanted>,
  timeoutMs: number,
): Promise<Wanted> {
  const settled = new AbortController()
  const { signal } = settled
  const fail = (what: string) => () => {
    throw new Error(`${basename(child.spawnargs.at(-1) ?? '')} ${what}`)
  }
  const ended = once(child, 'exit', { signal }).then(fail('ended by itself'))
  const late = sleep(timeoutMs, undefined, { signal }).then(fail(`did nothing for ${timeoutMs} ms`))
  try {
    return await Promise.race([wanted, ended, late])
  } finally {
    settled.abort()
  }
}

/** Asks a child to end, and waits until it has. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  const kill = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
  child.kill('SIGTERM')
  await exited
  clearTimeout(kill)
}

/** Rejects at SIGINT and SIGTERM, so that all that was started is stopped. */
export function rejectOnInterrupt(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'])
      process.once(signal, () => reject(new Error('Interrupted')))
  })
}
