import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type Config, loadConfig } from '../src/config.ts'
import { AppError } from '../src/errors.ts'

const DATABASE_URL = 'mysql://shop:secret@db.example:3306/shop'
const DEVELOPMENT_URL = 'mysql://root:offloop-development@localhost:3306/offloop'

describe('what is not set has a default', () => {
  const defaults = {
    role: 'all',
    valkeyUrl: undefined,
    database: { url: DATABASE_URL, poolSize: 10, maxWaitMs: 2_000 },
    http: {
      host: '127.0.0.1',
      port: 3000,
      corsOrigins: [],
      requestTimeoutMs: 5_000,
      drainTimeoutMs: 10_000,
    },
    proxy: { proxies: 0, header: 'x-forwarded-for' },
    limits: { unlimited: 'none', maxConnections: 1_000 },
    compute: {
      threads: availableParallelism(),
      minThreads: Math.ceil(availableParallelism() / 2),
      maxHeapMb: 1_024,
    },
    jobs: { queues: { '*': 5 }, keepMs: 7 * 86_400_000 },
    // feature: reports
    reports: { directory: resolve('.data/reports'), memoryMb: 256, s3: undefined },
    // /feature
    heapSnapshots: false,
    watchdog: { thresholdMs: 100, probes: { host: '127.0.0.1', port: 9464, maxBlockedMs: 10_000 } },
    slowQueryMs: 500,
    tracing: undefined,
    // feature: primes
    demoInline: false,
    // /feature
  }

  test('everything but the database', () => {
    expect(loadConfig({ DATABASE_URL })).toMatchObject({ ...defaults, log: { level: 'info' } })
  })

  test('an empty variable is not set', () => {
    const names = [
      'NODE_ENV',
      'DATABASE_POOL_SIZE',
      'HOST',
      'PORT',
      'CORS_ORIGINS',
      'COMPUTE_THREADS',
      // feature: primes
      'DEMO_INLINE',
      // /feature
      'LOG_FORMAT',
    ]
    const empty = Object.fromEntries(names.map((name) => [name, '']))
    expect(loadConfig({ DATABASE_URL, ...empty })).toMatchObject(defaults)
  })

  test('the log is JSON outside of a terminal', () => {
    for (const NODE_ENV of ['production', 'test'])
      expect(loadConfig({ DATABASE_URL, NODE_ENV }).log.format).toBe('json')
    expect(loadConfig({ DATABASE_URL, LOG_FORMAT: 'pretty' }).log.format).toBe('pretty')
  })
})

test('what is set is taken', () => {
  const config = loadConfig({
    ROLE: 'worker',
    DATABASE_URL,
    DATABASE_POOL_SIZE: '25',
    HOST: '0.0.0.0',
    PORT: '8080',
    CORS_ORIGINS: 'https://shop.example, http://localhost:5173,',
    DOCS_ACCESS: 'operate',
    SIGN_UP: 'false',
    BEHIND_TLS: 'true',
    TRUST_PROXY: '10.0.0.0/8, fd00::/8',
    TRUST_PROXY_HEADER: 'forwarded',
    RATE_LIMITS: 'off',
    MAX_CLIENT_CONNECTIONS: '50',
    VALKEY_URL: 'valkey://valkey:6379',
    REQUEST_TIMEOUT_MS: '2500',
    DRAIN_DELAY_MS: '5000',
    DRAIN_TIMEOUT_MS: '30000',
    COMPUTE_THREADS: '3',
    // feature: reports
    REPORT_DIR: '/data/reports',
    REPORT_MEMORY_MB: '512',
    REPORT_STORAGE: 's3://shop-data/reports/uploads',
    AWS_ENDPOINT_URL: 'http://minio:9000',
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'shop',
    AWS_SECRET_ACCESS_KEY: 'secret',
    // /feature
    COMPUTE_MAX_HEAP_MB: '256',
    JOBS_QUEUES: 'default:5, mail:20,*:0',
    JOBS_KEEP_DAYS: '30',
    WATCHDOG_MS: '250',
    OPS_HOST: '10.0.0.7',
    OPS_PORT: '9000',
    OPS_LIVE_LIMIT_MS: '30000',
    // feature: primes
    DEMO_INLINE: 'true',
    // /feature
    SLOW_QUERY_MS: '0',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'https://collector.example:4318',
    OTEL_TRACES_SAMPLER: 'traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.1',
    LOG_LEVEL: 'warn',
    LOG_FORMAT: 'json',
    OF_ANOTHER_PROGRAM: 'left alone',
  })
  expect(config).toEqual({
    role: 'worker',
    valkeyUrl: 'redis://valkey:6379',
    database: { url: DATABASE_URL, poolSize: 25, maxWaitMs: 1_000 },
    http: {
      host: '0.0.0.0',
      port: 8080,
      corsOrigins: ['https://shop.example', 'http://localhost:5173'],
      docsAccess: 'operate',
      requestTimeoutMs: 2_500,
      drainDelayMs: 5_000,
      drainTimeoutMs: 30_000,
    },
    access: { signUp: false, behindTls: true, signInLink: false },
    proxy: { proxies: ['10.0.0.0/8', 'fd00::/8'], header: 'forwarded' },
    limits: { unlimited: 'all', maxConnections: 50 },
    compute: { threads: 3, minThreads: 2, maxHeapMb: 256, batchThreads: 3 },
    jobs: { queues: { default: 5, mail: 20, '*': 0 }, keepMs: 30 * 86_400_000 },
    // feature: reports
    reports: {
      directory: '/data/reports',
      memoryMb: 512,
      s3: {
        endpoint: 'http://minio:9000',
        region: 'eu-central-1',
        bucket: 'shop-data',
        folder: 'reports/uploads',
        accessKeyId: 'shop',
        secretAccessKey: 'secret',
      },
    },
    // /feature
    heapSnapshots: false,
    watchdog: { thresholdMs: 250, probes: { host: '10.0.0.7', port: 9_000, maxBlockedMs: 30_000 } },
    slowQueryMs: 0,
    tracing: { endpoint: 'https://collector.example:4318', ratio: 0.1, followsParent: false },
    log: { level: 'warn', format: 'json' },
    // feature: primes
    demoInline: true,
    // /feature
  })
})

test.each([
  [{}, 1, true],
  [{ OTEL_TRACES_SAMPLER: 'always_off' }, 0, false],
  [{ OTEL_TRACES_SAMPLER: 'always_on', OTEL_TRACES_SAMPLER_ARG: '0.1' }, 1, false],
  [{ OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.1' }, 0.1, true],
])('%o samples a share of %d; a caller decides: %s', (env, ratio, followsParent) => {
  const OTEL_EXPORTER_OTLP_ENDPOINT = 'http://localhost:4318'
  const { tracing } = loadConfig({ DATABASE_URL, OTEL_EXPORTER_OTLP_ENDPOINT, ...env })
  expect(tracing).toEqual({ endpoint: OTEL_EXPORTER_OTLP_ENDPOINT, ratio, followsParent })
})

test('in development nothing limits this machine, where that is said', () => {
  const unlimited = (env: object) => loadConfig({ DATABASE_URL, ...env }).limits.unlimited
  expect(unlimited({ NODE_ENV: 'development' })).toBe('local')
  expect(unlimited({})).toBe('none')
})

test.each([
  ['https://Shop.Example', 'https://shop.example'],
  ['https://shop.example:443/', 'https://shop.example'],
  ['http://shop.example:80', 'http://shop.example'],
  // To browsers the dot makes it another origin.
  ['https://Shop.Example.:443', 'https://shop.example.'],
  ['https://bücher.example', 'https://xn--bcher-kva.example'],
  ['http://[2001:DB8:0::1]:8080', 'http://[2001:db8::1]:8080'],
])('the origin %s is taken as browsers send it, %s', (text, origin) => {
  expect(loadConfig({ DATABASE_URL, CORS_ORIGINS: text }).http.corsOrigins).toEqual([origin])
})

test('the ops port can be switched off', () => {
  expect(loadConfig({ DATABASE_URL, OPS_PORT: 'off' }).watchdog.probes).toBeUndefined()
})

describe('an invalid value', () => {
  test.each([
    ['NODE_ENV', 'staging'],
    ['DATABASE_POOL_SIZE', '0'],
    ['PORT', '65536'],
    ['PORT', 'http'],
    ['PORT', '80.5'],
    ['CORS_ORIGINS', 'shop.example'],
    ['CORS_ORIGINS', 'https://shop.example/path'],
    ['CORS_ORIGINS', 'https://user@shop.example'],
    ['CORS_ORIGINS', 'https://shop.example?'],
    ['CORS_ORIGINS', 'ftp://shop.example'],
    ['CORS_ORIGINS', '*'],
    ['REQUEST_TIMEOUT_MS', '0'],
    ['DRAIN_DELAY_MS', '-1'],
    ['DRAIN_TIMEOUT_MS', '1h'],
    ['COMPUTE_THREADS', '-1'],
    ['COMPUTE_MAX_HEAP_MB', '1'],
    ['WATCHDOG_MS', '-1'],
    ['JOBS_QUEUES', 'default'],
    ['JOBS_QUEUES', 'default:5,'],
    ['JOBS_QUEUES', 'default:5,default:6'],
    ['JOBS_QUEUES', 'default:1001'],
    ['JOBS_QUEUES', 'a b:1'],
    ['JOBS_CONCURRENCY', '5'],
    ['OPS_PORT', 'on'],
    ['OPS_PORT', '65536'],
    ['OPS_LIVE_LIMIT_MS', '0'],
    // feature: reports
    ['REPORT_STORAGE', 'bucket/folder'],
    ['REPORT_STORAGE', 's3://bucket'],
    ['REPORT_STORAGE', 's3://bucket/'],
    ['REPORT_STORAGE', 's3://bucket/../other'],
    ['REPORT_STORAGE', 's3://bucket/a//b'],
    ['AWS_ENDPOINT_URL', 'minio:9000'],
    // /feature
    // feature: primes
    ['DEMO_INLINE', 'perhaps'],
    // /feature
    ['SLOW_QUERY_MS', '-1'],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318'],
    ['OTEL_TRACES_SAMPLER', 'sometimes'],
    ['OTEL_TRACES_SAMPLER_ARG', '2'],
    ['LOG_LEVEL', 'loud'],
    ['LOG_FORMAT', 'xml'],
  ])('%s=%s is refused by name', (name, value) => {
    expect(namesRefused({ DATABASE_URL, [name]: value })).toEqual([name])
  })

  test('is named all at once', () => {
    expect(
      namesRefused({ PORT: 'http', COMPUTE_THREADS: 'many', LOG_LEVEL: 'loud' }).sort(),
    ).toEqual(['COMPUTE_THREADS', 'DATABASE_URL', 'LOG_LEVEL', 'PORT'])
  })

  test('is named together with the development password', () => {
    const names = namesRefused({
      NODE_ENV: 'production',
      DATABASE_URL: DEVELOPMENT_URL,
      PORT: 'http',
    })
    expect(names.sort()).toEqual(['DATABASE_URL', 'PORT'])
  })
})

describe('DATABASE_URL', () => {
  test('is the one that must be set; the refusal shows an example', () => {
    for (const env of [{}, { DATABASE_URL: '' }])
      expect(refusal(env)).toBe(
        'Bad configuration:\n  DATABASE_URL: is not set; it looks like mysql://user:password@host:3306/database',
      )
  })

  test.each([
    'postgres://shop:secret@db.example/shop',
    'mysql://db.example',
    'mysql://db.example/',
    'db.example',
    'mysql://shop:secr#et@db/shop',
  ])('cannot be %s', (url) => {
    expect(namesRefused({ DATABASE_URL: url })).toEqual(['DATABASE_URL'])
  })

  test('is not repeated in a refusal, since it may hold a password', () => {
    expect(refusal({ DATABASE_URL: 'mysql://shop:secret@db.example' })).not.toContain('secret')
  })

  test('may hold anything in its password, percent-encoded, and options', () => {
    const url = 'mysql://shop:p%40ss%2Fword%23@db.example:3307/shop?ssl=true'
    expect(loadConfig({ DATABASE_URL: url }).database.url).toBe(url)
  })

  test('has the development password in development only', () => {
    expect(loadConfig({ DATABASE_URL: DEVELOPMENT_URL }).database.url).toBe(DEVELOPMENT_URL)
    const message = refusal({ NODE_ENV: 'production', DATABASE_URL: DEVELOPMENT_URL })
    expect(message).toContain('DATABASE_URL: still has the development password')
    expect(message).not.toContain('offloop-development')
  })
})

test('heap snapshots are taken only where it is said that this is development', () => {
  const allows = (env: NodeJS.ProcessEnv) => loadConfig({ DATABASE_URL, ...env }).heapSnapshots
  expect([{}, { NODE_ENV: 'test' }, { NODE_ENV: 'production' }].map(allows)).toEqual([
    false,
    false,
    false,
  ])
  expect(allows({ NODE_ENV: 'development' })).toBe(true)
})

// feature: reports
test('a store of uploads needs a key, and is at Amazon by default', () => {
  const env = { DATABASE_URL, REPORT_STORAGE: 's3://shop-data/reports' }
  expect(namesRefused(env)).toEqual(['REPORT_STORAGE'])
  const keys = { AWS_ACCESS_KEY_ID: 'shop', AWS_SECRET_ACCESS_KEY: 'secret' }
  expect(loadConfig({ ...env, ...keys }).reports.s3).toMatchObject({
    endpoint: 'https://s3.us-east-1.amazonaws.com',
    region: 'us-east-1',
  })
})
// /feature

// feature: primes
test('lets the page block the event loop only where it is said that this is development', () => {
  const demoInline = (env: NodeJS.ProcessEnv) => loadConfig({ DATABASE_URL, ...env }).demoInline
  expect([{}, { NODE_ENV: 'test' }, { NODE_ENV: 'production' }].map(demoInline)).toEqual([
    false,
    false,
    false,
  ])
  expect(demoInline({ NODE_ENV: 'development' })).toBe(true)
  expect(demoInline({ NODE_ENV: 'development', DEMO_INLINE: 'false' })).toBe(false)
  expect(demoInline({ NODE_ENV: 'production', DEMO_INLINE: 'true' })).toBe(true)
})
// /feature

test('the configuration is frozen at every depth', () => {
  const config = loadConfig({ DATABASE_URL, CORS_ORIGINS: 'https://shop.example' })
  for (const part of [
    config,
    config.database,
    config.http,
    config.http.corsOrigins,
    config.compute,
    config.jobs,
    config.log,
  ])
    expect([part, Object.isFrozen(part)]).toEqual([part, true])
})

function refusal(env: NodeJS.ProcessEnv): string {
  let config: Config
  try {
    config = loadConfig(env)
  } catch (error) {
    expect(error).toBeInstanceOf(AppError)
    return (error as AppError).message
  }
  return expect.unreachable(`Took ${JSON.stringify(config)}`)
}

const namesRefused = (env: NodeJS.ProcessEnv) => [
  ...new Set(
    refusal(env)
      .match(/^ {2}\w+/gm)
      ?.map((name) => name.trim()),
  ),
]
