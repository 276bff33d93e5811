import { readdirSync, readFileSync } from 'node:fs'

/**
 * Of the file descriptors that are left; the others are for files, probes, and connections that
 * kill statements.
 */
const SHARE_FOR_CLIENTS = 0.75

/**
 * How many clients may be connected at once, so that the process never runs out of file descriptors
 * for its own work: without them it can neither query its database nor answer a probe. Only Linux
 * tells; elsewhere there is no limit.
 *
 * @param reserved descriptors that the process will need besides, for its connections to the
 * database.
 */
export function connectionLimit(reserved: number): number {
  if (process.platform !== 'linux') return Number.POSITIVE_INFINITY
  const [, limit] =
    readFileSync('/proc/self/limits', 'utf8').match(/^Max open files\s+(\d+)/m) ?? []
  if (limit === undefined) return Number.POSITIVE_INFINITY
  const left = Number(limit) - readdirSync('/proc/self/fd').length - reserved
  return Math.max(1, Math.floor(left * SHARE_FOR_CLIENTS))
}
