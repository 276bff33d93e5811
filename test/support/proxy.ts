import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/**
 * A balancer of TCP connections: to which of the servers, by their URLs, each one is led is up to
 * the test.
 */
export async function useProxy(choose: (index: number) => string) {
  const links = new Set<{ client: Socket; server: Socket }>()
  let count = 0
  const proxy = createServer((client) => {
    const { hostname, port } = new URL(choose(count++))
    const server = connect(Number(port), hostname)
    const link = { client, server }
    links.add(link)
    client.pipe(server).pipe(client)
    for (const socket of [client, server])
      socket.on('error', () => {}).on('close', () => links.delete(link))
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  onTestFinished(() => {
    for (const { client, server } of links) [client, server].map((socket) => socket.destroy())
    proxy.close()
  })
  return {
    /** The URL of what `server` has, by way of the proxy. */
    urlOf(server: string): string {
      const { port } = proxy.address() as AddressInfo
      return Object.assign(new URL(server), { hostname: '127.0.0.1', port }).href
    },
    /**
     * From here on nothing of what the open connections send arrives, in neither direction, and
     * neither end hears of it.
     */
    silence() {
      for (const { client, server } of links) {
        client.unpipe(server)
        server.unpipe(client)
        client.resume()
        server.resume()
      }
    },
  }
}
