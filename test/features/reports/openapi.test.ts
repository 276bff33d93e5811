import { expect, test } from 'vitest'
import { serveApi } from '../../support/api.ts'
import { until } from '../../support/until.ts'

const { send, statusesOf, defaultsOf } = serveApi()

test('the OpenAPI document has the defaults and statuses of reports', () => {
  expect(defaultsOf('readReport')).toMatchObject({ format: 'json' })
  expect(statusesOf('createReport')).toEqual([
    '202',
    '400',
    '401',
    '403',
    '408',
    '409',
    '413',
    '415',
    '422',
    '429',
    '503',
    '504',
    '507',
  ])
})

test('answers of every operation on reports and jobs fit the document, from queued to succeeded', async () => {
  const csv = { 'content-type': 'text/csv' }
  const created = await send('createReport', {
    body: 'a,b\n1,x\n2,y\n',
    query: 'groupBy=b&value=a',
    headers: csv,
  })
  const { id } = JSON.parse(created.text ?? '')
  await until(
    async () => (await send('readReport', { id })).text?.includes('"succeeded"'),
    'it has succeeded',
  )
  const answers = [
    created,
    await send('readReport', { id: String(id).toUpperCase() }),
    await send('readReport', { id, query: 'format=csv' }),
    await send('followReport', { id }),
    await send('listReports'),
    await send('cancelReport', { id }),
    await send('readJob', { id: String(id).toUpperCase() }),
    await send('listJobs', { query: 'state=succeeded' }),
    await send('cancelJob', { id }),
    await send('retryJob', { id }),
    await send('readJob', { id: crypto.randomUUID() }),
  ]
  expect(answers.map(({ status }) => status)).toEqual([
    202, 200, 200, 200, 200, 202, 200, 200, 409, 409, 404,
  ])
})
