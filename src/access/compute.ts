import { argon2Sync, timingSafeEqual } from 'node:crypto'
import { implement } from '@offloop/workpool/task'
import { ARGON2, checkPassword, hashPassword, toPhc } from './password.ts'

const PHC = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([\w+/]+)\$([\w+/]+)$/

/** Blocks its thread: call it on a worker thread. */
export const hashNow = (password: string, salt: Uint8Array): string =>
  toPhc(salt, argon2Sync('argon2id', { ...ARGON2, message: password, nonce: salt }))

implement(hashPassword, ({ password, salt }) => hashNow(password, salt))

// By the stored parameters: new passwords may have stronger ones.
implement(checkPassword, ({ password, hash }) => {
  const [, memory, passes, parallelism, salt = '', expected = ''] = hash.match(PHC) ?? []
  const wanted = Buffer.from(expected, 'base64')
  const actual = argon2Sync('argon2id', {
    message: password,
    nonce: Buffer.from(salt, 'base64'),
    memory: Number(memory),
    passes: Number(passes),
    parallelism: Number(parallelism),
    tagLength: wanted.length,
  })
  return timingSafeEqual(actual, wanted)
})
