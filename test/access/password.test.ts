import { Pool } from '@offloop/workpool/pool'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Passwords } from '../../src/access/password.ts'

const PASSWORD = 'correct horse battery staple'
const { signal } = new AbortController()
let compute: Pool
let passwords: Passwords

beforeAll(async () => {
  const entry = new URL('../../src/thread.ts', import.meta.url)
  compute = await Pool.open({ entry, threads: 1, stopping: signal })
  passwords = new Passwords(compute)
})
afterAll(() => compute[Symbol.asyncDispose]())

describe('a password', () => {
  test('is stored as a salted argon2id hash, in which it is not found', async () => {
    const [first, second] = await Promise.all([1, 2].map(() => passwords.hash(PASSWORD, signal)))
    expect(first).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$[\w+/]{22}\$[\w+/]{43}$/)
    expect(first).not.toBe(second)
    expect(first).not.toContain(PASSWORD)
  })

  test('is right or wrong by its hash', async () => {
    const hash = await passwords.hash(PASSWORD, signal)
    expect(await passwords.check(PASSWORD, hash, signal)).toBe(true)
    expect(await passwords.check(`${PASSWORD}.`, hash, signal)).toBe(false)
    expect(await passwords.check('', hash, signal)).toBe(false)
  })

  test('is checked by the parameters of its hash, which may be older', async () => {
    const older =
      '$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$0000000000000000000000000000000000000000000'
    expect(await passwords.check(PASSWORD, older, signal)).toBe(false)
  })

  test('of an unknown account is wrong, after the same work', async () => {
    expect(await passwords.check(PASSWORD, null, signal)).toBe(false)
  })
})

test('more than a hundred that wait are refused, and the rest are checked', async () => {
  const { signal: left, abort } = newSignal()
  const all = Array.from({ length: 102 }, () => passwords.hash(PASSWORD, left))
  await expect(all.at(-1)).rejects.toMatchObject({ code: 'overloaded' })
  abort()
  await Promise.allSettled(all)
  expect(await passwords.check(PASSWORD, await passwords.hash(PASSWORD, signal), signal)).toBe(true)
})

function newSignal() {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort(new Error('left')) }
}
