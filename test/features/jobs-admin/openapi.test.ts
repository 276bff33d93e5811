import { expect, test } from 'vitest'
import { serveApi } from '../../support/api.ts'

const { statusesOf } = serveApi()

test('the OpenAPI document has the statuses of a retry', () => {
  expect(statusesOf('retryJob')).toEqual([
    '202',
    '401',
    '403',
    '404',
    '409',
    '422',
    '429',
    '503',
    '504',
  ])
})
