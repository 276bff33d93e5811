import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { REQUIRED_NODE_FLAGS } from '@offloop/workpool/worker'
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { AppError } from './errors.ts'

/** From `docker-compose.yml`. */
const DEVELOPMENT_PASSWORD = 'offloop-development'

/** Set by `bin/node` (docs/decisions/008 and 011). */
const V8_FLAGS = ['--no-allocation-site-pretenuring', ...REQUIRED_NODE_FLAGS]

const DAY_MS = 86_400_000

const CONNECTION_WAIT_SHARE = 0.4
const MAX_CONNECTION_WAIT_MS = 2_000

const integer = (min: number, max: number) => z.coerce.number().int().min(min).max(max)
const milliseconds = integer(1, 3_600_000)

const DATABASE_FORM = 'mysql://user:password@host:3306/database'
const databaseUrl = z
  .string({ error: `is not set; it looks like ${DATABASE_FORM}` })
  .regex(/^mysql:\/\/[^/]+\/[^/?]+(\?.*)?$/, `must look like ${DATABASE_FORM}`)
  .refine(URL.canParse, 'is not a valid URL (percent-encode special characters in the password)')

const origin = z
  .string()
  .refine(
    isOrigin,
    'must be a comma-separated list of origins such as https://example.com, without a path',
  )
  .transform((text) => new URL(text).origin)

const origins = z
  .string()
  .transform((text) => text.split(',').filter((item) => item.trim()))
  .pipe(z.array(origin))

const RATIO_SAMPLERS = ['traceidratio', 'parentbased_traceidratio'] as const
const sampler = z.enum([
  'always_on',
  'always_off',
  'parentbased_always_on',
  'parentbased_always_off',
  ...RATIO_SAMPLERS,
])

const networks = z
  .string()
  .transform((text) => text.split(',').map((item) => item.trim()))
  .pipe(z.array(z.string().refine(ipaddr.isValidCIDR)))

// feature: reports
const STORAGE_FORM = 's3://bucket/folder'
const storage = z
  .string()
  .regex(/^s3:\/\/[a-z\d][a-z\d.-]+(\/(?!\.+(\/|$))[\w.-]+)+$/, `must look like ${STORAGE_FORM}`)
  .transform((text) => {
    const [, bucket = '', folder = ''] = /^s3:\/\/(.*?)\/(.*)$/.exec(text) ?? []
    return { bucket, folder }
  })
// /feature

const queuePlaces = z
  .string()
  .trim()
  .regex(/^(\*|[\w.-]{1,100}):(\d{1,3}|1000)$/)
  .transform((text) => text.split(':') as [string, string])

const queues = z.union(
  [
    z.literal('off').transform(() => ({})),
    z
      .string()
      .transform((text) => text.split(','))
      .pipe(z.array(queuePlaces))
      .refine((places) => new Set(places.map(([queue]) => queue)).size === places.length)
      .transform((places) =>
        Object.fromEntries(places.map(([queue, count]) => [queue, Number(count)])),
      ),
  ],
  {
    error:
      'must be a list of queues, each with how many of its jobs run at once, from 0 to 1000, ' +
      'such as default:5,mail:20; * stands for every other queue, and off for none at all',
  },
)

/** `.env.example` explains each variable. */
const environment = z
  .object({
    NODE_ENV: z.enum(['development', 'production', 'test']).default('development'),
    ROLE: z.enum(['all', 'web', 'worker']).default('all'),
    DATABASE_URL: databaseUrl,
    DATABASE_POOL_SIZE: integer(1, 1_000).default(10),
    HOST: z.string().min(1).default('127.0.0.1'),
    PORT: integer(0, 65_535).default(3000),
    CORS_ORIGINS: origins.default([]),
    DOCS_ACCESS: z.enum(['public', 'operate']).optional(),
    SIGN_UP: z.stringbool().default(true),
    BEHIND_TLS: z.stringbool().default(false),
    TRUST_PROXY: z
      .union([integer(0, 10), networks], {
        error:
          'must be a number of proxies, or a list of their networks such as 10.0.0.0/8,fd00::/8',
      })
      .default(0),
    TRUST_PROXY_HEADER: z.enum(['x-forwarded-for', 'forwarded']).default('x-forwarded-for'),
    RATE_LIMITS: z.stringbool().default(true),
    MAX_CLIENT_CONNECTIONS: integer(1, 1_000_000).default(1_000),
    VALKEY_URL: z
      .url({ protocol: /^(redis|valkey)s?$/, error: 'must look like redis://host:6379' })
      .transform((url) => url.replace(/^valkey/, 'redis'))
      .optional(),
    REQUEST_TIMEOUT_MS: milliseconds.default(5_000),
    DRAIN_DELAY_MS: integer(0, 3_600_000).default(0),
    DRAIN_TIMEOUT_MS: milliseconds.default(10_000),
    COMPUTE_THREADS: integer(1, 256).default(availableParallelism()),
    COMPUTE_MAX_HEAP_MB: integer(16, 1_048_576).default(1_024),
    JOBS_QUEUES: queues.default({ '*': 5 }),
    JOBS_CONCURRENCY: z.never('is now JOBS_QUEUES, such as *:5, or off instead of 0').optional(),
    JOBS_KEEP_DAYS: integer(1, 3_650).default(7),
    // feature: reports
    REPORT_DIR: z.string().min(1).default('.data/reports'),
    REPORT_MEMORY_MB: integer(64, 1_048_576).default(256),
    REPORT_STORAGE: storage.optional(),
    AWS_ENDPOINT_URL: z.url({ protocol: /^https?$/, error: 'must be an http(s) URL' }).optional(),
    AWS_REGION: z.string().min(1).default('us-east-1'),
    AWS_ACCESS_KEY_ID: z.string().min(1).optional(),
    AWS_SECRET_ACCESS_KEY: z.string().min(1).optional(),
    // /feature
    WATCHDOG_MS: integer(0, 3_600_000).default(100),
    OPS_HOST: z.string().min(1).default('127.0.0.1'),
    OPS_PORT: z
      .union([z.literal('off'), integer(0, 65_535)], { error: 'must be a port, or off' })
      .default(9464),
    OPS_LIVE_LIMIT_MS: milliseconds.default(10_000),
    // feature: primes
    DEMO_INLINE: z.stringbool().optional(),
    // /feature
    SLOW_QUERY_MS: integer(0, 3_600_000).default(500),
    OTEL_EXPORTER_OTLP_ENDPOINT: z
      .url({ protocol: /^https?$/, error: 'must look like http://localhost:4318' })
      .optional(),
    OTEL_TRACES_SAMPLER: sampler.default('parentbased_always_on'),
    OTEL_TRACES_SAMPLER_ARG: z.coerce.number().min(0).max(1).default(1),
    LOG_LEVEL: z
      .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
      .default('info'),
    LOG_FORMAT: z.enum(['json', 'pretty']).optional(),
  })
  .refine(
    ({ NODE_ENV, DATABASE_URL }) =>
      NODE_ENV !== 'production' || URL.parse(DATABASE_URL)?.password !== DEVELOPMENT_PASSWORD,
    {
      path: ['DATABASE_URL'],
      message:
        'still has the development password; choose another one for production ' +
        '(under Docker Compose, by MYSQL_PASSWORD)',
      // Lists this error together with the others.
      when: () => true,
    },
  )
  // feature: reports
  .refine(
    ({ REPORT_STORAGE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY }) =>
      !REPORT_STORAGE || (AWS_ACCESS_KEY_ID && AWS_SECRET_ACCESS_KEY),
    {
      path: ['REPORT_STORAGE'],
      message: 'also needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
    },
  )
// /feature

export type Config = ReturnType<typeof loadConfig>

/**
 * The only reader of the environment.
 *
 * @throws AppError `invalid` naming every variable that is wrong.
 */
export function loadConfig(env: NodeJS.ProcessEnv) {
  const { data, error } = environment.safeParse(withoutEmpty(env))
  if (error) {
    const problems = error.issues.map(({ path, message }) => `  ${path.join('.')}: ${message}`)
    throw new AppError('invalid', ['Bad configuration:', ...problems].join('\n'))
  }
  // Without NODE_ENV this may be production.
  const isDevelopment = env['NODE_ENV'] === 'development'
  return freeze({
    role: data.ROLE,
    valkeyUrl: data.VALKEY_URL,
    database: {
      url: data.DATABASE_URL,
      poolSize: data.DATABASE_POOL_SIZE,
      maxWaitMs: Math.min(MAX_CONNECTION_WAIT_MS, data.REQUEST_TIMEOUT_MS * CONNECTION_WAIT_SHARE),
    },
    http: {
      host: data.HOST,
      port: data.PORT,
      corsOrigins: data.CORS_ORIGINS,
      docsAccess: data.DOCS_ACCESS ?? (data.NODE_ENV === 'production' ? 'operate' : 'public'),
      requestTimeoutMs: data.REQUEST_TIMEOUT_MS,
      drainDelayMs: data.DRAIN_DELAY_MS,
      drainTimeoutMs: data.DRAIN_TIMEOUT_MS,
    },
    access: {
      signUp: data.SIGN_UP,
      behindTls: data.BEHIND_TLS,
      signInLink: isDevelopment,
    },
    proxy: { proxies: data.TRUST_PROXY, header: data.TRUST_PROXY_HEADER },
    limits: {
      // Otherwise a client nearby may be a proxy.
      unlimited: !data.RATE_LIMITS ? 'all' : env['NODE_ENV'] === 'development' ? 'local' : 'none',
      maxConnections: data.MAX_CLIENT_CONNECTIONS,
    },
    compute: {
      threads: data.COMPUTE_THREADS,
      minThreads: Math.ceil(data.COMPUTE_THREADS / 2),
      maxHeapMb: data.COMPUTE_MAX_HEAP_MB,
      // No request needs one there.
      ...(data.ROLE === 'worker' && { batchThreads: data.COMPUTE_THREADS }),
    },
    jobs: {
      queues: data.ROLE === 'web' ? {} : data.JOBS_QUEUES,
      keepMs: data.JOBS_KEEP_DAYS * DAY_MS,
    },
    // feature: reports
    reports: {
      directory: resolve(data.REPORT_DIR),
      memoryMb: data.REPORT_MEMORY_MB,
      s3: data.REPORT_STORAGE && {
        ...data.REPORT_STORAGE,
        endpoint: data.AWS_ENDPOINT_URL ?? `https://s3.${data.AWS_REGION}.amazonaws.com`,
        region: data.AWS_REGION,
        accessKeyId: data.AWS_ACCESS_KEY_ID ?? '',
        secretAccessKey: data.AWS_SECRET_ACCESS_KEY ?? '',
      },
    },
    // /feature
    // They hold secrets.
    heapSnapshots: isDevelopment,
    watchdog: {
      thresholdMs: data.WATCHDOG_MS,
      probes:
        data.OPS_PORT === 'off'
          ? undefined
          : { host: data.OPS_HOST, port: data.OPS_PORT, maxBlockedMs: data.OPS_LIVE_LIMIT_MS },
    },
    slowQueryMs: data.SLOW_QUERY_MS,
    tracing: data.OTEL_EXPORTER_OTLP_ENDPOINT
      ? {
          endpoint: data.OTEL_EXPORTER_OTLP_ENDPOINT,
          ratio: toRatio(data.OTEL_TRACES_SAMPLER, data.OTEL_TRACES_SAMPLER_ARG),
          followsParent: data.OTEL_TRACES_SAMPLER.startsWith('parentbased'),
        }
      : undefined,
    log: {
      level: data.LOG_LEVEL,
      format:
        data.LOG_FORMAT ??
        (data.NODE_ENV === 'development' && process.stdout.isTTY ? 'pretty' : 'json'),
    },
    // feature: primes
    demoInline: data.DEMO_INLINE ?? isDevelopment,
    // /feature
  } as const)
}

function toRatio(name: z.infer<typeof sampler>, argument: number): number {
  if ((RATIO_SAMPLERS as readonly string[]).includes(name)) return argument
  return name.endsWith('always_on') ? 1 : 0
}

export const missingV8Flags = () => V8_FLAGS.filter((flag) => !process.execArgv.includes(flag))

function freeze<T extends object>(value: T): T {
  for (const part of Object.values(value)) if (typeof part === 'object') freeze(part)
  return Object.freeze(value)
}

/** Accepts `https://Example.com:443/`, too, which browsers send as `https://example.com`. */
function isOrigin(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && url.href === `${url.origin}/`
}

/** `PORT=` in an env file means "not set". */
const withoutEmpty = (env: NodeJS.ProcessEnv) =>
  Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''))
