import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { toNetwork } from './client.ts'
import type { RateLimits } from './limits.ts'

/**
 * Limits what each client has open: its connections, or behind a proxy, which shares its own among
 * clients, its requests in progress, event streams and websockets.
 */
export class Connections {
  readonly #limits: RateLimits
  readonly #max: number
  readonly #behindProxy: boolean
  readonly #open = new Map<string, number>()

  constructor(limits: RateLimits, max: number, behindProxy: boolean) {
    this.#limits = limits
    this.#max = max
    this.#behindProxy = behindProxy
  }

  admitSocket(socket: Socket): boolean {
    return this.#behindProxy || this.#admit(socket.remoteAddress?.replace('::ffff:', ''), socket)
  }

  admitRequest(client: string, outgoing: EventEmitter): boolean {
    return !this.#behindProxy || this.#admit(client, outgoing)
  }

  /** A websocket takes its connection over. */
  admitUpgrade = this.admitRequest

  #admit(client: string | undefined, opened: EventEmitter): boolean {
    if (!client || this.#limits.isUnlimited(client)) return true
    const network = toNetwork(client)
    const open = this.#open.get(network) ?? 0
    if (open >= this.#max) return false
    this.#open.set(network, open + 1)
    opened.once('close', () => this.#leave(network))
    return true
  }

  #leave(network: string) {
    const open = this.#open.get(network) ?? 0
    if (open > 1) this.#open.set(network, open - 1)
    else this.#open.delete(network)
  }
}
