import { randomBytes } from 'node:crypto'
import type { Pool } from '@offloop/workpool/pool'
import { type Task, task } from '@offloop/workpool/task'
import { Semaphore } from '../db/semaphore.ts'
import { currentWork } from '../http/context.ts'

/** OWASP's recommendation for argon2id: 19 MiB, two passes. */
export const ARGON2 = { memory: 19 * 1024, passes: 2, parallelism: 1, tagLength: 32 }

/** Of the threads: a flood of log-ins leaves cores to others. */
const THREADS_SHARE = 0.5
const TIMEOUT_MS = 3_000
/** More would wait longer than people do. */
const LIMITS = {
  maxWaiters: 100,
  maxWaitMs: 2_000,
  refusal: 'Too many passwords are being checked: try again later',
}

/** Returns a PHC string of argon2id. */
export const hashPassword = task<{ password: string; salt: Uint8Array }, string>('password.hash')

/** Compares in constant time. */
export const checkPassword = task<{ password: string; hash: string }, boolean>('password.check')

/** The hash of no password. */
const NOBODYS = toPhc(Buffer.alloc(16), Buffer.alloc(ARGON2.tagLength))

/** Hashes and checks passwords on worker threads. */
export class Passwords {
  readonly #compute: Pool
  readonly #turns: Semaphore

  constructor(compute: Pool) {
    this.#compute = compute
    this.#turns = new Semaphore(Math.ceil(compute.threads * THREADS_SHARE), LIMITS)
  }

  hash(password: string, signal: AbortSignal): Promise<string> {
    return this.#run(hashPassword, { password, salt: randomBytes(16) }, signal)
  }

  /** @param hash null for an unknown account, which takes as long as a known one. */
  async check(password: string, hash: string | null, signal: AbortSignal): Promise<boolean> {
    const isRight = await this.#run(checkPassword, { password, hash: hash ?? NOBODYS }, signal)
    return isRight && hash !== null
  }

  async #run<Input, Output>(task: Task<Input, Output>, input: Input, signal: AbortSignal) {
    const work = currentWork()
    await this.#turns.acquire(signal)
    try {
      return await this.#compute.run(task, input, {
        signal,
        timeoutMs: TIMEOUT_MS,
        key: 'password',
        requestId: work?.requestId,
        trace: work?.trace?.traceparent,
      })
    } finally {
      this.#turns.release()
    }
  }
}

/** By the format of the Password Hashing Competition. */
export function toPhc(salt: Uint8Array, hash: Uint8Array): string {
  const { memory, passes, parallelism } = ARGON2
  const [saltText, hashText] = [salt, hash].map((bytes) =>
    Buffer.from(bytes).toString('base64').replace(/=+$/, ''),
  )
  return `$argon2id$v=19$m=${memory},t=${passes},p=${parallelism}$${saltText}$${hashText}`
}
