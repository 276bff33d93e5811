import { randomUUID } from 'node:crypto'
import { type Outcome, RemoteClient } from '@offloop/remote/client'
import { RemoteServer } from '@offloop/remote/server'
import type { Pool } from '@offloop/workpool/pool'
import type { Valkey } from './valkey.ts'

/** What the processes that share a Valkey compute for each other. */
export class RemoteCompute {
  readonly #valkey: Valkey
  readonly #id = randomUUID()
  readonly client: RemoteClient

  constructor(valkey: Valkey, onOutcome: (outcome: Outcome) => void) {
    this.#valkey = valkey
    this.client = new RemoteClient({ valkey, id: this.#id, onOutcome })
  }

  async serve(pool: Pool, stopping: AbortSignal): Promise<RemoteServer> {
    return new RemoteServer({
      valkey: this.#valkey,
      id: this.#id,
      threads: pool.batchThreads,
      tasks: await pool.listTasks(),
      run: (work, options) => pool.serve(work, options),
      stopping,
    })
  }

  [Symbol.asyncDispose]() {
    return this.client[Symbol.asyncDispose]()
  }
}
