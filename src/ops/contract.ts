import { z } from '@hono/zod-openapi'
import { event } from '../realtime/event.ts'

/** The topic of what the live page shows of the process itself. */
export const OPS = 'ops'

const Milliseconds = z.number().min(0)
const Count = z.int().min(0)

const Incident = z
  .object({
    at: z.number().describe('Milliseconds since the epoch'),
    heldMs: Milliseconds,
    function: z.string(),
    file: z.string(),
    line: z.int(),
    requestId: z.string().exactOptional(),
    route: z.string().exactOptional(),
  })
  .openapi('Incident')

/** One second of the process, in milliseconds and bytes unless it says otherwise. */
export const OpsSample = z
  .object({
    at: z.int().describe('the end of that second, in milliseconds since the epoch'),
    loop: z
      .object({ p50: Milliseconds, p99: Milliseconds, max: Milliseconds, utilization: z.number() })
      .describe(
        'how late the event loop was: `p50`, `p99`, `max` in ms; its `utilization` from 0 to 1',
      ),
    incidents: z
      .array(Incident)
      .describe(
        'what blocked the loop: `at`, `heldMs`, `function`, `file`, `line`, `requestId`, `route`; the longest, if there are many',
      ),
    http: z.object({ requestsPerSecond: z.number() }).describe('`requestsPerSecond`'),
    compute: z
      .object({
        queued: Count,
        running: Count,
        threads: z.array(z.object({ name: z.string(), task: z.string().nullable() })),
      })
      .describe(
        'how many tasks are `queued`, how many threads are `running`; the first 64 `threads` with `name` and `task`',
      ),
    database: z
      .object({ size: Count, inUse: Count, waiting: Count })
      .describe("the pool's `size`, connections `inUse`, requests `waiting` for one"),
    memory: z
      .object({ rss: Count, heapUsed: Count, heapTotal: Count, external: Count })
      .describe('`rss`, `heapUsed`, `heapTotal`, `external` in bytes'),
    cpu: z.number().describe('cores kept busy, all threads together'),
    uptime: Milliseconds.describe('in ms'),
    sockets: Count.describe('connected clients'),
  })
  .openapi('OpsSample')

export type OpsSample = z.infer<typeof OpsSample>

/** A task on its thread; or several short ones in a row that are alike. */
const TaskSpan = z.object({
  task: z.string(),
  thread: z.string(),
  startedAt: z.number().describe('Milliseconds since the epoch, with fractions'),
  endedAt: z.number(),
  queuedMs: z.number().describe('How long it waited for its thread; of several, the longest'),
  runMs: z
    .number()
    .describe('How long the thread worked: for several, less than from `startedAt` to `endedAt`'),
  outcome: z.enum(['succeeded', 'failed', 'cancelled', 'deadline_exceeded', 'crashed']),
  requestId: z
    .string()
    .optional()
    .describe('Who asked for it; of several, only if all were asked for by one'),
  count: z.int().describe('How many tasks it stands for'),
})

export type TaskSpan = z.infer<typeof TaskSpan>

const SpanBatch = z.object({
  spans: z
    .array(TaskSpan)
    .describe(
      'at most 50: `task`, `thread`, `startedAt`, `endedAt`, `queuedMs`, `runMs`, `outcome`, `requestId`, and the `count` of short tasks that a span stands for',
    ),
  leftOut: z.int().describe('tasks that are in none of them, because there were too many'),
})

export type SpanBatch = z.infer<typeof SpanBatch>

export const opsSample = event('ops.sample', {
  topic: OPS,
  when: 'Once a second. The last two minutes are at `GET /v1/ops`.',
  payload: OpsSample,
})

export const opsSpans = event('ops.spans', {
  topic: OPS,
  when: 'Up to four times a second, when tasks have ended.',
  payload: SpanBatch,
})
