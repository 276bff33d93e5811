import type { Incident } from '@offloop/loopwatch/incident'
import type { Outcome } from '@offloop/workpool/call'
import { event } from '../realtime/event.ts'

/** The topic of what the live page shows of the process itself. */
export const OPS = 'ops'

/** One second of the process, in milliseconds and bytes unless it says otherwise. */
export interface OpsSample {
  /** The end of that second, since the epoch. */
  at: number
  /**
   * How late the event loop came to things that were due, and the share of the time that it was
   * busy, from 0 to 1.
   */
  loop: { p50: number; p99: number; max: number; utilization: number }
  /** What held the loop in that second: the longest, if there are many. */
  incidents: Incident[]
  http: { requestsPerSecond: number }
  compute: {
    /** Tasks that wait for a thread, and threads that run one. */
    queued: number
    running: number
    /** The threads that there are now (the first 64), and the task that each runs. */
    threads: ThreadState[]
  }
  database: { size: number; inUse: number; waiting: number }
  memory: { rss: number; heapUsed: number; heapTotal: number; external: number }
  /** Cores that the process kept busy, all threads together: from 0 to their number. */
  cpu: number
  uptime: number
  /** Connected Socket.IO clients. */
  sockets: number
}

/** A thread that is there, whether or not it does anything. */
interface ThreadState {
  name: string
  task: string | null
}

/** A task on its thread; or several short ones in a row that are alike. */
export interface TaskSpan {
  task: string
  thread: string
  /** Milliseconds since the epoch, with fractions. */
  startedAt: number
  endedAt: number
  /** How long it waited for its thread; of several, the longest. */
  queuedMs: number
  /** How long the thread worked: for several, less than from `startedAt` to `endedAt`. */
  runMs: number
  outcome: Outcome
  /** Who asked for it; of several, only if all were asked for by one. */
  requestId?: string | undefined
  /** How many tasks it stands for. */
  count: number
}

export interface SpanBatch {
  spans: TaskSpan[]
  /** Tasks that ran and are in none of the spans, because there were too many. */
  leftOut: number
}

export const opsSample = event<OpsSample>()('ops.sample', {
  topic: OPS,
  when: 'Once a second. The last two minutes are at `GET /v1/ops`.',
  payload: {
    at: 'the end of that second, in milliseconds since the epoch',
    loop: 'how late the event loop was: `p50`, `p99`, `max` in ms; its `utilization` from 0 to 1',
    incidents:
      'what held the loop: `at`, `heldMs`, `function`, `file`, `line`, `requestId`, `route`',
    http: '`requestsPerSecond`',
    compute:
      'how many tasks are `queued`, how many threads are `running`; the `threads` with `name` and `task`',
    database: "the pool's `size`, connections `inUse`, requests `waiting` for one",
    memory: '`rss`, `heapUsed`, `heapTotal`, `external` in bytes',
    cpu: 'cores kept busy, all threads together',
    uptime: 'in ms',
    sockets: 'connected clients',
  },
})

export const opsSpans = event<SpanBatch>()('ops.spans', {
  topic: OPS,
  when: 'Up to four times a second, when tasks have ended.',
  payload: {
    spans:
      'at most 50: `task`, `thread`, `startedAt`, `endedAt`, `queuedMs`, `runMs`, `outcome`, `requestId`, and the `count` of short tasks that one stands for',
    leftOut: 'tasks that are in none of them',
  },
})
