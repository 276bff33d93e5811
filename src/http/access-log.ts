import { type Log, Repeats } from '../log.ts'
import type { RequestRecord } from './exchange.ts'

/**
 * Requests of load balancers and of Prometheus, every few seconds for as long as the service lives.
 */
const MONITORING_ROUTES = new Set(['/health/live', '/health/ready', '/metrics'])

/**
 * Writes one line about each request that has ended, at level `info`. Routine requests that
 * succeeded are written at `debug`, because they would outnumber those of users: probes, scrapes,
 * and reads that say of themselves that no user asked for them. Of those that were refused with
 * 503, only the first for each route is written at once, and then the number of the others every
 * few seconds: under overload a line for each would take time from those that are served. Metrics
 * count them all.
 */
export function accessLog(log: Log): (record: RequestRecord) => void {
  // A child logger has its fields serialised already, and there are only so many routes and
  // statuses.
  const children = new Map<string, Log>()
  const childFor = (method: string, route: string, status: number) => {
    const key = `${method} ${route} ${status}`
    const child = children.get(key) ?? log.child({ method, route, status })
    children.set(key, child)
    return child
  }
  const refusals = new Repeats()
  const isRepeatedRefusal = ({ method, route, status }: RequestRecord) => {
    if (status !== 503) return false
    const logOthers = (refused: number) =>
      childFor(method, route, status).info({ refused }, 'requests')
    return !refusals.isFirst(`${method} ${route}`, logOthers)
  }
  return (record) => {
    if (isRepeatedRefusal(record)) return
    const { method, route, status, ms, requestId } = record
    const level = isRoutine(record) ? 'debug' : 'info'
    if (log.isLevelEnabled(level))
      childFor(method, route, status)[level]({ ms, requestId }, 'request')
  }
}

/**
 * Only reads, and only those that succeeded: the header must not keep a change or a failure out of
 * the log.
 */
function isRoutine({ method, route, status, background }: RequestRecord): boolean {
  if (status >= 400 || (method !== 'GET' && method !== 'HEAD')) return false
  return background || MONITORING_ROUTES.has(route)
}
