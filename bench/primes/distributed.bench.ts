import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { RemoteClient } from '@offloop/remote/client'
import { Pool } from '@offloop/workpool/pool'
import { openLocalValkey } from '../../scripts/database/local-valkey.ts'
import { countPrimes, type Range } from '../../src/features/primes/contract.ts'
import { openLog } from '../../src/log.ts'
import { Valkey } from '../../src/valkey.ts'
import { atLeast, atMost, type Bench } from '../support/bench.ts'
import { nextMessage } from '../support/child.ts'
import { median, medianRatio } from '../support/statistics.ts'
import { number } from '../support/table.ts'

const CHUNK_MS = 250
const CHUNK_ITEMS = 20
const CHUNKS = 24
const ROUNDS = 7
const CALLS = 1_000
const CALLS_AT_ONCE = 4
/** Some 0.6 s on one thread: a call has chunks that are worth sending. */
const CALL: Range = { from: 0, to: 3_000_000 }
const CALL_COUNT = 216_816
const CALL_TIMEOUT_MS = 60_000
/** Longer than a lost chunk takes to run again: one that two kills meet is refused. */
const KILL_EVERY_MS = 8_000
const SERVERS_KILLED = 3
const START_TIMEOUT_MS = 30_000
const ROOT = join(import.meta.dirname, '../..')
const TASK = countPrimes.name

interface Figures {
  scaling: { ofOne: number }
  overhead: { percent: number }
  kills: { calls: number; kills: number; wrong: number; slowestMs: number }
}

interface Cluster {
  client: RemoteClient
  valkeyUrl: string
}

export const bench: Bench<Figures> = {
  description: 'distributed primes on one and two processes, and while processes are killed',
  packages: ['bullmq', 'ioredis'],

  async run({ started, progress, quick }) {
    const server = started.adopt(await openLocalValkey(), (local) => local.stop())
    const valkey = started.use(new Valkey(server.url, openLog({ level: 'silent', format: 'json' })))
    const client = started.use(new RemoteClient({ valkey, id: 'bench' }))
    const cluster = { client, valkeyUrl: server.url }
    const rounds = quick ? 1 : ROUNDS

    await using first = await startServer(cluster)
    await untilPlaces(client, 2)
    const chunk = await makeChunk(client)
    progress.next('chunks one by one')
    const overhead = await measureOverhead(client, chunk, quick ? 5 : CHUNKS)
    const ones: number[] = []
    const twos: number[] = []
    for (let round = 0; round < rounds; round++) {
      progress.next(`one and two processes, round ${round + 1}`)
      await untilPlaces(client, 2)
      ones.push(await runChunks(client, chunk))
      await using _second = await startServer(cluster)
      await untilPlaces(client, 4)
      twos.push(await runChunks(client, chunk))
    }
    await first[Symbol.asyncDispose]()
    const calls = quick ? 40 : CALLS
    progress.next(`${calls} calls while processes are killed`)
    const kills = await measureKills(cluster, calls)

    const scaling = {
      oneMs: median(ones),
      twoMs: median(twos),
      ofOne: medianRatio(ones, twos),
    }
    return {
      tables: [
        { title: `${CHUNKS} chunks of ${CHUNK_MS} ms, on one process and on two`, rows: [scaling] },
        {
          title: 'A chunk: from sending it to its output, beside its time there',
          rows: [overhead],
        },
        { title: 'Calls while processes are killed', rows: [kills] },
      ],
      figures: { settings: { CHUNKS, CHUNK_MS, rounds, KILL_EVERY_MS }, scaling, overhead, kills },
      targets: [
        atLeast('Two processes beside one, of one thread each', scaling.ofOne, 1.8),
        atMost('Overhead of a chunk, %', overhead.percent, 5),
        atMost('Wrong results or calls that hang', kills.wrong, 0),
      ],
    }
  },

  summarise: ({ scaling, overhead, kills }) => [
    [
      'distributed primes on two processes of one thread each',
      `${number(scaling.ofOne, 2)} × one`,
      `a chunk of 250 ms takes ${number(overhead.percent, 1)} % longer than on a thread here; of ${kills.calls} calls with ${kills.kills} processes killed, ${kills.wrong} were wrong`,
    ],
  ],
}

/** Without threads here: what the others do is all that counts. */
async function runChunks(client: RemoteClient, chunk: Range[]): Promise<number> {
  const startedAt = performance.now()
  let left = CHUNKS
  const sendOn = async () => {
    while (left-- > 0) await runChunk(client, chunk)
  }
  await Promise.all(Array.from({ length: client.places(TASK) }, sendOn))
  return performance.now() - startedAt
}

async function measureOverhead(client: RemoteClient, chunk: Range[], count: number) {
  const all: number[] = []
  const alone: number[] = []
  for (let sent = 0; sent < count; sent++) {
    const startedAt = performance.now()
    alone.push(await runChunk(client, chunk))
    all.push(performance.now() - startedAt)
  }
  return {
    chunkMs: median(alone),
    callMs: median(all),
    percent: 100 * (medianRatio(all, alone) - 1),
  }
}

/** Returns its time on the thread. A slow machine gives a part of it back. */
async function runChunk(client: RemoteClient, input: Range[]): Promise<number> {
  const work = {
    task: TASK,
    mode: 'joined',
    input,
    requestId: undefined,
    trace: undefined,
  } as const
  const answer = await client.run(work, { signal: AbortSignal.timeout(CALL_TIMEOUT_MS) })
  if (answer.outcome !== 'done') throw new Error(`A chunk was not done: ${answer.outcome}`)
  const rest = input.slice(answer.items)
  return answer.runMs + (rest.length > 0 ? await runChunk(client, rest) : 0)
}

/** Equal ranges that take CHUNK_MS together. */
async function makeChunk(client: RemoteClient): Promise<Range[]> {
  const toChunk = (width: number) =>
    Array.from({ length: CHUNK_ITEMS }, () => ({ from: 1_000_000, to: 1_000_000 + width }))
  let width = 10_000
  for (let round = 0; round < 5; round++)
    width = Math.ceil((width * CHUNK_MS) / (await runChunk(client, toChunk(width))))
  return toChunk(width)
}

async function measureKills(cluster: Cluster, calls: number) {
  await using started = new AsyncDisposableStack()
  const pool = started.use(
    await Pool.open({
      entry: new URL('../../src/thread.ts', import.meta.url),
      threads: 1,
      remote: cluster.client,
    }),
  )
  const servers = await Promise.all(
    Array.from({ length: SERVERS_KILLED }, () => startServer(cluster)),
  )
  started.defer(async () => {
    for (const server of servers) await server[Symbol.asyncDispose]()
  })
  const ended = new AbortController()
  let kills = 0
  const kill = async () => {
    for (;;) {
      await sleep(KILL_EVERY_MS, undefined, { signal: ended.signal })
      const index = Math.floor(Math.random() * servers.length)
      await servers[index]?.[Symbol.asyncDispose]()
      kills++
      servers[index] = await startServer(cluster)
    }
  }
  const killing = kill().catch((error) => {
    if (!ended.signal.aborted) throw error
  })
  const times: number[] = []
  let wrong = 0
  let left = calls
  const call = async () => {
    while (left-- > 0) {
      const startedAt = performance.now()
      const options = { distributed: true, timeoutMs: CALL_TIMEOUT_MS }
      const count = await pool
        .map(countPrimes, [CALL], options)
        .reduce(0)
        .catch(() => undefined)
      if (count !== CALL_COUNT) wrong++
      times.push(performance.now() - startedAt)
    }
  }
  await Promise.all(Array.from({ length: CALLS_AT_ONCE }, call))
  ended.abort()
  await killing
  return { calls, kills, wrong, medianMs: median(times), slowestMs: Math.max(...times) }
}

async function startServer({ valkeyUrl }: Cluster) {
  const child: ChildProcess = fork(join(import.meta.dirname, 'distributed-server.ts'), {
    execPath: join(ROOT, 'bin/node'),
    env: { ...process.env, VALKEY_URL: valkeyUrl },
  })
  await nextMessage(child, START_TIMEOUT_MS)
  return {
    async [Symbol.asyncDispose]() {
      if (child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}

async function untilPlaces(client: RemoteClient, places: number): Promise<void> {
  while (client.places(TASK) !== places) await sleep(20)
}
