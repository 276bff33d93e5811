import { expect, onTestFinished, test } from 'vitest'
import { every } from '../../src/ops/live-samples.ts'
import { until } from '../support/until.ts'

test('what is called again and again may throw: that is reported, and it is called in its time', async () => {
  const errors: unknown[] = []
  let calls = 0
  const act = () => {
    if (++calls % 2 === 1) throw new Error(`call ${calls}`)
  }
  const stop = every(1, act, (error) => errors.push(error))
  onTestFinished(stop)
  await until(() => calls >= 4, 'it is called four times')
  expect(errors.slice(0, 2).map(String)).toEqual(['Error: call 1', 'Error: call 3'])
})
