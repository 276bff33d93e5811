import { type AddressInfo, connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Stands before the database that DATABASE_URL names and hands each of its answers on DELAY_MS
 * later, as a database does that is slow: the service's pool is then what bounds it, at pool size ÷
 * delay statements per second.
 */
const delayMs = Number(process.env['DELAY_MS'])
const database = new URL(process.env['DATABASE_URL'] ?? '')

const proxy = createServer((client) => {
  const server = connect({
    host: database.hostname,
    port: Number(database.port || 3306),
    noDelay: true,
  })
  client.setNoDelay(true)
  client.pipe(server)
  server.on('data', async (bytes) => {
    await sleep(delayMs)
    client.write(bytes)
  })
  for (const [one, other] of [
    [client, server],
    [server, client],
  ] as const) {
    one.on('error', () => {})
    one.on('close', () => other.destroy())
  }
})

proxy.listen(0, '127.0.0.1', () => {
  const { port } = proxy.address() as AddressInfo
  process.send?.({ url: Object.assign(new URL(database), { hostname: '127.0.0.1', port }).href })
})
process.on('disconnect', () => process.exit())
