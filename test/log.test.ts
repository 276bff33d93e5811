import { describe, expect, test } from 'vitest'
import { useProcess } from './support/process.ts'
import { until } from './support/until.ts'

/** Two lines, of a process that ends like this. */
const logLines = (END: string) => useProcess('test/support/logging.ts', { END })

const messagesIn = (output: string) => output.match(/(?<="msg":").*?(?=")/g)

describe('a line of the log', () => {
  test('is written at once, and what follows it soon is collected', async () => {
    const { exitCode, output } = logLines('killed soon')
    await exitCode
    expect(messagesIn(output())).toEqual(['the first'])
  })

  test('that was collected is written before long', async () => {
    const { output } = logLines('never')
    await until(() => output().includes('the second'), 'it is written')
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
