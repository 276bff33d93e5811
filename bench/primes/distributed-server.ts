import { RemoteServer } from '@offloop/remote/server'
import { Pool } from '@offloop/workpool/pool'
import { openLog } from '../../src/log.ts'
import { Valkey } from '../../src/valkey.ts'

/** A process with one thread that serves calls of others; prints nothing. */
const valkey = new Valkey(
  process.env['VALKEY_URL'] ?? '',
  openLog({ level: 'silent', format: 'json' }),
)
const pool = await Pool.open({
  entry: new URL('../../src/thread.ts', import.meta.url),
  threads: 1,
  batchThreads: 1,
})
new RemoteServer({
  valkey,
  id: `server-${process.pid}`,
  threads: 1,
  tasks: await pool.listTasks(),
  run: (work, options) => pool.serve(work, options),
  stopping: new AbortController().signal,
})
process.on('disconnect', () => process.exit())
process.send?.('serving')
