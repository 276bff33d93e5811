import type { Log } from '../log.ts'
import type { RequestRecord } from './exchange.ts'

/** Writes one line about each request that is done. */
export function accessLog(log: Log): (record: RequestRecord) => void {
  // A child logger has its fields serialised already, and there are only so many routes and statuses.
  const children = new Map<string, Log>()
  const childFor = (method: string, route: string, status: number) => {
    const key = `${method} ${route} ${status}`
    const child = children.get(key) ?? log.child({ method, route, status })
    children.set(key, child)
    return child
  }
  return ({ method, route, status, ms, requestId }) => childFor(method, route, status).info({ ms, requestId }, 'request')
}
