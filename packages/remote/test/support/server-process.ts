import { Pool } from '@offloop/workpool/pool'
import { openLog } from '../../../../src/log.ts'
import { Valkey } from '../../../../src/valkey.ts'
import { RemoteServer } from '../../server.ts'

/** Serves calls, and prints the timing of each as JSON, and when its threads are busy or idle. */
const { VALKEY_URL = '', SERVER = '', THREADS = '1', LACKS = '' } = process.env
const stopping = new AbortController()
const valkey = new Valkey(VALKEY_URL, openLog({ level: 'warn', format: 'json' }))
const pool = await Pool.open({
  entry: new URL('./worker.ts', import.meta.url),
  threads: Number(THREADS),
  batchThreads: Number(THREADS),
  stopping: stopping.signal,
  drainMs: 3_000,
  onTiming: (timing) => console.log(JSON.stringify(timing)),
})
const server = new RemoteServer({
  valkey,
  id: SERVER,
  threads: Number(THREADS),
  tasks: (await pool.listTasks()).filter((name) => name !== LACKS),
  run: (work, options) => pool.serve(work, options),
  stopping: stopping.signal,
})
let wasBusy = false
setInterval(() => {
  const isBusy = pool.running > 0
  if (isBusy !== wasBusy) console.log(isBusy ? 'busy' : 'idle', Date.now())
  wasBusy = isBusy
}, 10).unref()

process.on('SIGTERM', async () => {
  stopping.abort()
  await server[Symbol.asyncDispose]()
  await pool[Symbol.asyncDispose]()
  valkey[Symbol.dispose]()
  console.log('stopped')
})
