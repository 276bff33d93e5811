import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { useProcess } from './support/process.ts'

/** Two lines, of a process that ends like this. */
const logLines = (END: string) => useProcess('test/support/logging.ts', { END })

const messagesIn = (output: string) => output.match(/(?<="msg":").*?(?=")/g)

describe('a line of the log', () => {
  test('is collected, and written before long', async () => {
    const { printed, output } = logLines('never')
    await printed(/the second/)
    expect(messagesIn(output())).toEqual(['the first', 'the second'])
  })

  test('that was collected is written when the process exits', async () => {
    const { exitCode, output } = logLines('exit')
    expect(await exitCode).toBe(0)
    expect(messagesIn(output())).toEqual(['the first', 'the second'])
  })

  test('about a fatal error is written whatever happens next', async () => {
    const { exitCode, output } = logLines('fatal')
    await exitCode
    expect(messagesIn(output())).toEqual(['the first', 'the second'])
  })
})

test('secrets are redacted by their names, and tokens wherever they are', async () => {
  const { exitCode, output } = logLines('secrets')
  await exitCode
  expect(output()).not.toMatch(/PRIVATE|ttt/)
  const { public: shown, headers, body, err, msg } = JSON.parse(output().split('\n')[1] ?? '')
  expect([shown, headers.public, body.public, err.public]).toEqual([1, 1, 1, 1])
  expect([err.message, msg]).toEqual(['The token [Redacted] is wrong', '/sign-in?token=[Redacted]'])
})

test.runIf(process.platform === 'linux').each(['exit', 'exit later'])(
  'a disk that is full costs the lines, not the process (%s)',
  async (END) => {
    const output = openSync('/dev/full', 'w')
    const child = spawn(process.execPath, ['test/support/logging.ts'], {
      stdio: ['ignore', output, 'pipe'],
      env: { ...process.env, END },
    })
    closeSync(output)
    const [errors, [code]] = await Promise.all([
      text(child.stderr as Readable),
      once(child, 'exit'),
    ])
    expect([code, errors]).toEqual([0, ''])
  },
)

test('a reader that stands still costs the lines that no longer fit, and a line says how many', async () => {
  const { stdout, stderr } = spawn(process.execPath, ['test/support/logging.ts'], {
    env: { ...process.env, END: 'flooded' },
  })
  await once(stderr, 'data')
  const messages = messagesIn(await text(stdout)) ?? []
  const notice = messages.pop()
  expect(notice).toMatch(/^Log reader too slow: dropped \d+ lines before this one$/)
  const missing = Number(notice?.match(/\d+/)?.[0])
  expect(missing).toBeGreaterThan(10_000)
  expect(messages.length + missing).toBe(1 + 60_000)
})
