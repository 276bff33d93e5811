import { parentPort, workerData } from 'node:worker_threads'
import { Inquiry } from './inquiry.ts'
import { OpsServer } from './ops-server.ts'
import type { MainMessage, ThreadData, ThreadMessage } from './protocol.ts'
import { Watch } from './watch.ts'

/**
 * What the watchdog's thread runs, until it is terminated: the watch, and the ops server if there
 * is to be one.
 */
if (!parentPort) throw new Error('This is the entry of a worker thread')
const port = parentPort
const { server, ...options } = workerData as ThreadData
const tell = (message: ThreadMessage) => port.postMessage(message)

const watch = new Watch(options, (incident) => tell({ kind: 'incident', incident }))
const inquiry = new Inquiry(port, () => watch.held.heldMs)
port.on('message', async (message: MainMessage) => {
  if (message.kind === 'answer') return inquiry.receive(message)
  await watch.settle()
  tell({ kind: 'settled', id: message.id })
})

try {
  tell({
    kind: 'open',
    url: server && (await OpsServer.listen(server, { inquiry, held: () => watch.held })),
  })
} catch (error) {
  const { code = '', message } = error as NodeJS.ErrnoException
  tell({ kind: 'failed', error: { code, message } })
}
