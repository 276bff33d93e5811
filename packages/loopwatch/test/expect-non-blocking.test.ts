import { readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { expectNonBlocking } from '../expect-non-blocking.ts'

const lineOf = (mark: string) =>
  readFileSync(import.meta.filename, 'utf8')
    .split('\n')
    .findIndex((line) => line.endsWith(`// ${mark}`)) + 1

/** In CPU time of the thread: on a busy machine it gets only a part of a core. */
function spin(ms: number) {
  const since = process.threadCpuUsage()
  let used = process.threadCpuUsage(since)
  while (used.user + used.system < ms * 1_000) used = process.threadCpuUsage(since) // blocking line
}

const messageOf = (failing: Promise<unknown>): Promise<string> =>
  failing.then(
    () => expect.unreachable(),
    (error: Error) => error.message,
  )

test('returns the result of the code, awaited if it is a promise', async () => {
  const wait = async () => {
    await sleep(200)
    return 'done'
  }
  expect(await expectNonBlocking(wait)).toBe('done')
  expect(await expectNonBlocking(() => 'at once')).toBe('at once')
})

test('fails naming function and line of what blocks the event loop', async () => {
  const message = await messageOf(expectNonBlocking(async () => spin(300)))
  expect(message).toMatch(
    /^Expected the event loop not to be blocked for longer than 50 ms:\n {2}\d+ ms by spin \(/,
  )
  const file = relative(process.cwd(), import.meta.filename)
  expect(message).toContain(`(${file}:${lineOf('blocking line')})`)
})

test("the bound is the caller's", async () => {
  const hundred = async () => spin(100)
  await expectNonBlocking(hundred, { maxMs: 1_000 })
  expect(await messageOf(expectNonBlocking(hundred, { maxMs: 20 }))).toContain('20 ms')
})

test('names all blocks', async () => {
  const thrice = async () => {
    for (let index = 0; index < 3; index++) {
      spin(150)
      await sleep(50)
    }
  }
  expect((await messageOf(expectNonBlocking(thrice))).match(/ by spin /g)).toHaveLength(3)
})

test('throws what the code throws', async () => {
  expect(await messageOf(expectNonBlocking(() => Promise.reject(new Error('no'))))).toBe('no')
})
