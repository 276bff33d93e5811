import { Readable } from 'node:stream'
import { getHeapSnapshot, getHeapSpaceStatistics, getHeapStatistics } from 'node:v8'
import { z } from '@hono/zod-openapi'
import type { Watchdog } from '@offloop/loopwatch/watchdog'
import type { Pool } from '@offloop/workpool/pool'
import type { Config } from '../config.ts'
import { AppError } from '../errors.ts'
import { getContext } from '../http/context.ts'
import { createRouter, json, jsonBody, validationFailed } from '../http/router.ts'

const EVENT_LOOP = 'event-loop'
const SNAPSHOT_MS_PER_MIB = 40

const ProfileInput = z
  .strictObject({
    target: z
      .string()
      .default(EVENT_LOOP)
      .describe('`event-loop`, or the name of a worker thread such as `compute-1`'),
    seconds: z.int().min(5).max(30).default(10),
  })
  .openapi('ProfileInput')

const Bytes = z.int().min(0)

const Heap = z
  .strictObject({
    used: Bytes,
    total: Bytes,
    limit: Bytes,
    spaces: z.array(z.strictObject({ name: z.string(), used: Bytes, total: Bytes })),
    snapshot: z
      .strictObject({ allowed: z.boolean(), blockedMs: z.int() })
      .describe('Whether one may be taken, and about how long it would block the event loop'),
  })
  .openapi('Heap')

/** In bytes. */
export type Heap = z.infer<typeof Heap>

export type Profiler = Pick<Watchdog, 'profile' | 'endProfile'>

interface Parts {
  watchdog: Profiler
  compute: Pick<Pool, 'workerStates'>
  config: Pick<Config, 'heapSnapshots'>
  stopping: AbortSignal
}

export function profileRoutes({ watchdog, compute, config, stopping }: Parts) {
  const router = createRouter()
  let isTakingSnapshot = false

  router.openapi({
    method: 'post',
    path: '/profiles',
    operationId: 'recordProfile',
    access: 'operate',
    limit: 'heavy',
    summary: 'Record a CPU profile of the event loop or a worker thread',
    description:
      'Answers when it is recorded, even if what it records is blocked. The file opens in ' +
      "Chromium's developer tools and in editors.",
    request: jsonBody(ProfileInput),
    responses: {
      200: file('A `.cpuprofile`: JSON, the `Profiler.Profile` of the DevTools protocol'),
      409: { description: 'Another profile is being recorded' },
    },
    handler: async (c) => {
      const { target, seconds } = c.req.valid('json')
      const names = compute
        .workerStates()
        .flatMap(({ name, kind }) => (kind === 'thread' ? name : []))
      if (target !== EVENT_LOOP && !names.includes(target)) throw unknownTarget(names)
      const context = getContext(c)
      context.clearDeadline()
      const profile = await watchdog.profile({
        thread: target === EVENT_LOOP ? undefined : target,
        durationMs: seconds * 1_000,
        signal: AbortSignal.any([context.signal, stopping]),
      })
      context.signal.throwIfAborted()
      return c.body(profile, 200, fileHeaders(target, 'cpuprofile'))
    },
  })

  router.openapi({
    method: 'delete',
    path: '/profiles/current',
    operationId: 'endProfile',
    access: 'operate',
    summary: 'End the recording early: its request gets what was recorded until now',
    responses: {
      204: { description: 'Ended' },
      404: { description: 'No profile is being recorded' },
    },
    handler(c) {
      if (!watchdog.endProfile()) throw new AppError('not_found', 'No profile is being recorded')
      return c.body(null, 204)
    },
  })

  router.openapi({
    method: 'get',
    path: '/heap',
    operationId: 'readHeap',
    access: 'operate',
    summary: "Read figures of V8's heap",
    responses: { 200: json(Heap, 'In bytes, without the heaps of worker threads') },
    handler: (c) =>
      c.json(describeHeap(config.heapSnapshots), 200, { 'Cache-Control': 'no-store' }),
  })

  router.openapi({
    method: 'post',
    path: '/heap-snapshot',
    operationId: 'takeHeapSnapshot',
    access: 'operate',
    limit: 'heavy',
    summary: 'Take a heap snapshot, which blocks the event loop and holds secrets',
    responses: {
      200: file("A `.heapsnapshot`: JSON for Chromium's developer tools"),
      404: { description: 'The service does not run in development' },
      409: { description: 'Another one is being sent' },
    },
    handler(c) {
      if (!config.heapSnapshots)
        throw new AppError(
          'not_found',
          'Heap snapshots hold secrets and block the event loop: they take NODE_ENV=development',
        )
      if (isTakingSnapshot) throw new AppError('conflict', 'Another heap snapshot is being sent')
      getContext(c).clearDeadline()
      const snapshot = getHeapSnapshot().once('close', () => {
        isTakingSnapshot = false
      })
      isTakingSnapshot = true
      const body = Readable.toWeb(snapshot) as ReadableStream
      return c.body(body, 200, fileHeaders('heap', 'heapsnapshot'))
    },
  })

  return router
}

const file = (description: string) => ({
  description,
  content: {
    'application/octet-stream': { schema: z.string().openapi({ format: 'binary' }) },
  },
})

/** `compute-1-20260131T120000Z.cpuprofile`. */
function fileHeaders(name: string, extension: string) {
  const time = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '')
  return {
    'Content-Type': 'application/octet-stream',
    'Content-Disposition': `attachment; filename="${name}-${time}.${extension}"`,
    'Cache-Control': 'no-store',
  }
}

const unknownTarget = (names: string[]) =>
  validationFailed([
    { path: 'body.target', message: `Must be one of ${[EVENT_LOOP, ...names].join(', ')}` },
  ])

function describeHeap(allowed: boolean): Heap {
  const { used_heap_size: used, total_heap_size, heap_size_limit } = getHeapStatistics()
  const spaces = getHeapSpaceStatistics().map(({ space_name, space_used_size, space_size }) => ({
    name: space_name,
    used: space_used_size,
    total: space_size,
  }))
  const blockedMs = Math.round((used / 2 ** 20) * SNAPSHOT_MS_PER_MIB)
  return {
    used,
    total: total_heap_size,
    limit: heap_size_limit,
    spaces,
    snapshot: { allowed, blockedMs },
  }
}
