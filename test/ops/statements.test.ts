import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { LiveRequests } from '../../src/ops/live-requests.ts'
import { Metrics } from '../../src/ops/metrics.ts'
import { Statements } from '../../src/ops/statements.ts'
import { useDatabase } from '../support/database.ts'
import { useProcess } from '../support/process.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'

const SLOW_MS = 100

let metrics: Metrics
let requests: LiveRequests
const log = { warn: vi.fn() }

beforeEach(() => {
  metrics = new Metrics()
  requests = new LiveRequests()
  log.warn.mockReset()
})

describe('the text of a statement', () => {
  test.each([
    [
      "select `a` from `t1` where `b` = 'x''y' and c = 12.5",
      'select a from t1 where b = ?? and c = ?',
    ],
    [String.raw`select 'it\'s' , "a \" b", 0xff, -1e5`, 'select ? , ?, …, -?'],
    ["select '", 'select ?'],
    ['select ?\n  from a\twhere b in (?, ?, ?,?)', 'select ? from a where b in (?, …)'],
    [
      'insert into a values (?, 1, now()), (?, 2, now())',
      'insert into a values (?, …, now()), (?, …, now())',
    ],
    ['insert into a values (?, ?), (?, ?), (?, ?)', 'insert into a values (?, …), …'],
    ["select /* it's */ 'a' -- isn't\n, 'b' # don't", 'select ? , ?'],
    ["select 'a\\\nsecret'", 'select ?'],
  ])('%s: no value is in it', (text, expected) => {
    run(openStatements(), text)
    expect(requests.read().statements[0]?.text).toBe(expected)
  })

  test.each([
    ['of letters', `'a secret`],
    ['that ends in the middle of an escape', String.raw`'secret\'`],
  ])('is cut, also where that is within a value %s', (_, value) => {
    const statements = openStatements()
    run(statements, `select ${'a, '.repeat(100_000)}1`)
    for (const end of [1_000, 1_001, 1_002])
      run(statements, `select ${'1, '.repeat(300)}`.padEnd(end - value.length) + value)
    for (const { text } of requests.read().statements) {
      expect(text.length).toBeLessThanOrEqual(200)
      expect(text).not.toContain('secret')
    }
  })
})

describe('the name of a statement', () => {
  test.each([
    ['select * from `item` where id = ?', 'select item'],
    ['select distinct kind from (select kind from job limit 1) as first', 'select job'],
    ['insert into `job_attempt` (`id`) select id from job', 'insert job_attempt'],
    ['update job set state = ? where id = ?', 'update job'],
    ['delete from job where id = ?', 'delete job'],
    ['select id from job where id = ? for update skip locked', 'select job'],
    ['select 1', 'select'],
    ['commit', 'commit'],
  ])('%s', async (text, name) => {
    run(openStatements(), text)
    expect(await countOf(name)).toBe(1)
  })

  test('is that of a prepared query', async () => {
    run(openStatements(), 'select id from item', 1, 'item.ids')
    expect(await countOf('item.ids')).toBe(1)
    expect(await countOf('select item')).toBeUndefined()
  })

  test('is one of 100, further ones are counted together', async () => {
    const statements = openStatements()
    for (let index = 0; index < 150; index++) run(statements, `select a from table_${index}`)
    expect(await countOf('other')).toBe(50)
  })
})

describe('a slow statement', () => {
  test('is logged once with text and without values, and then counted', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const statements = openStatements()
    for (let turn = 0; turn < 10; turn++)
      run(statements, "select a from item where name = 'secret'", SLOW_MS)
    run(statements, 'select b from item', SLOW_MS - 1)
    expect(log.warn.mock.calls).toEqual([
      [
        expect.objectContaining({
          statement: 'select item',
          sql: 'select a from item where name = ?',
          ms: SLOW_MS,
        }),
        'Slow SQL statement',
      ],
    ])
    vi.advanceTimersByTime(5_000)
    expect(log.warn).toHaveBeenLastCalledWith(
      { statement: 'select item', slow: 9 },
      'Slow SQL statements',
    )
    expect(await readMetric('sql_slow_statements_total')).toBe(10)
  })

  test('is none with a limit of 0', async () => {
    run(openStatements(0), 'select a from item', 60_000)
    expect(log.warn).not.toHaveBeenCalled()
    expect(await readMetric('sql_slow_statements_total')).toBe(0)
  })

  test('is logged with its request and route, or its job, also when its time was up', async () => {
    const service = useProcess('test/support/slow-statements.ts', {
      DATABASE_URL: (await useDatabase()).url,
      SLOW_QUERY_MS: '200',
      REQUEST_TIMEOUT_MS: '1000',
    })
    const slow = async (ms: number) => {
      const { headers } = await request(`${await service.url()}/v1/slow/${ms}`)
      return headers.get('x-request-id')
    }
    const [first, second] = [await slow(0.3), await slow(60)]
    const find = (part: object) =>
      until(() => readSlow(service.output()).find((line) => hasAll(line, part)), 'it is logged')
    const route = '/v1/slow/:seconds'
    await find({ requestId: first, route, sql: 'select sleep(?) as s1' })
    await find({ requestId: second, route, sql: 'select sleep(?) as s60' })
    const ofJob = await find({ kind: 'slow.job', sql: 'select sleep(?) as job' })
    expect(ofJob).toMatchObject({ job: expect.any(String), ms: expect.any(Number) })
  })
})

const openStatements = (slowMs = SLOW_MS) =>
  new Statements({ metrics, requests, log, slowMs, tracing: undefined })

function run(statements: Statements, text: string, ms = 1, name?: string) {
  const clock = vi.spyOn(performance, 'now').mockReturnValue(1_000_000)
  const end = statements.observe(text, name, {})
  clock.mockReturnValue(1_000_000 + ms)
  end(false)
  clock.mockRestore()
}

const readSlow = (output: string): Record<string, unknown>[] =>
  output
    .split('\n')
    .filter((line) => line.includes('Slow SQL statement"'))
    .map((line) => JSON.parse(line))

const hasAll = (line: Record<string, unknown>, part: object) =>
  Object.entries(part).every(([name, value]) => line[name] === value)

async function readMetric(series: string): Promise<number | undefined> {
  const lines = (await metrics.scrape()).split('\n')
  const line = lines.find((line) => line.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.split(' ').at(-1))
}

const countOf = (name: string) => readMetric(`sql_statement_seconds_count{name="${name}"}`)
