import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

export interface ProxyTrust {
  /** How many proxies each request passes, or the networks they are in; 0 for none. */
  proxies: number | readonly string[]
  header: 'x-forwarded-for' | 'forwarded'
}

/** Finds a client's address; empty once its socket is gone. */
export type FindClient = (request: Pick<IncomingMessage, 'headers' | 'socket'>) => string

const FORWARDED_FOR = /(?:^|;)\s*for="?([^";]+)/i
/** A port is left out; IPv6 has brackets before one. */
const NODE = /^\[(.+)\](?::\d+)?$|^([\d.]+):\d+$/
const MAPPED = '::ffff:'
const LOCAL_RANGES = new Set(['loopback', 'private', 'uniqueLocal', 'linkLocal'])
/** An IPv6 client has a whole /64. */
const NETWORK_GROUPS = 4

/**
 * Reads the header from the right, where each proxy adds who sent to it. What is left of trusted
 * entries may be invented.
 */
export function clientFinder({ proxies, header }: ProxyTrust): FindClient {
  const isTrusted = trustIn(proxies)
  return ({ headers, socket }) => {
    const remote = socket.remoteAddress ?? ''
    let client = remote.startsWith(MAPPED) ? remote.slice(MAPPED.length) : remote
    let rest = headers[header] as string | undefined
    for (let hop = 0; rest !== undefined && isTrusted(client, hop); hop++) {
      const comma = rest.lastIndexOf(',')
      const sender = readSender(rest.slice(comma + 1), header)
      if (sender === undefined) break
      client = sender
      rest = comma < 0 ? undefined : rest.slice(0, comma)
    }
    return client
  }
}

/** What limits count by. */
export function toNetwork(client: string): string {
  if (!client.includes(':')) return client
  return `${ipaddr.IPv6.parse(client).parts.slice(0, NETWORK_GROUPS).map(toHex).join(':')}::/64`
}

/** Whether it is on this machine, in a container of it, or nearby. */
export const isLocal = (client: string): boolean =>
  isIP(client) > 0 && LOCAL_RANGES.has(ipaddr.parse(client).range())

function trustIn(proxies: number | readonly string[]): (client: string, hop: number) => boolean {
  if (typeof proxies === 'number') return (_, hop) => hop < proxies
  const trusted = proxies.map((network) => ipaddr.parseCIDR(network))
  return (client) =>
    isIP(client) > 0 && ipaddr.subnetMatch(ipaddr.parse(client), { trusted }) === 'trusted'
}

function readSender(entry: string, header: ProxyTrust['header']): string | undefined {
  const node = (header === 'forwarded' ? entry.match(FORWARDED_FOR)?.[1] : entry)?.trim() ?? ''
  const [, inBrackets, beforePort] = node.match(NODE) ?? []
  const address = inBrackets ?? beforePort ?? node
  return isIP(address) > 0 ? ipaddr.process(address).toString() : undefined
}

const toHex = (group: number) => group.toString(16)
