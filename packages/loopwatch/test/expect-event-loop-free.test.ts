import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { failure } from '../../../test/support/compute.ts'
import { expectEventLoopFree } from '../expect-event-loop-free.ts'

const lineOf = (mark: string) =>
  readFileSync(import.meta.filename, 'utf8')
    .split('\n')
    .findIndex((line) => line.endsWith(`// ${mark}`)) + 1

/** For so long by the clock of the thread: on a busy machine it gets only a part of the time. */
function hold(ms: number) {
  const since = process.threadCpuUsage()
  let used = process.threadCpuUsage(since)
  while (used.user + used.system < ms * 1_000) used = process.threadCpuUsage(since) // held here
}

test('gives back what the code gives, if it awaits', async () => {
  const wait = async () => {
    await sleep(200)
    return 'done'
  }
  expect(await expectEventLoopFree(wait)).toBe('done')
  expect(await expectEventLoopFree(() => 'at once')).toBe('at once')
})

test('fails naming function and line of what holds the event loop', async () => {
  const { message } = await failure(expectEventLoopFree(async () => hold(300)))
  expect(message).toMatch(
    /^The event loop was held for longer than 50 ms:\n {2}\d+ ms by hold \(packages\/loopwatch\/test\//,
  )
  expect(message).toContain(`expect-event-loop-free.test.ts:${lineOf('held here')})`)
})

test("the bound is the caller's", async () => {
  const hundred = async () => hold(100)
  await expectEventLoopFree(hundred, { maxMs: 1_000 })
  expect(await failure(expectEventLoopFree(hundred, { maxMs: 20 }))).toBeInstanceOf(Error)
})

test('names all of them', async () => {
  const thrice = async () => {
    for (let index = 0; index < 3; index++) {
      hold(150)
      await sleep(50)
    }
  }
  const { message } = await failure(expectEventLoopFree(thrice))
  expect(message.match(/ by hold /g)).toHaveLength(3)
})

test('what the code throws is thrown', async () => {
  const { message } = await failure(expectEventLoopFree(() => Promise.reject(new Error('no'))))
  expect(message).toBe('no')
})
