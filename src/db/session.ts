import { setTimeout as sleep } from 'node:timers/promises'
import { createConnection, type PoolConnection, type RowDataPacket } from 'mysql2'
import { isDisconnect } from './errors.ts'

/**
 * Set on every session, so that no server's defaults decide what a date means or whether a bad
 * value is an error.
 */
const SQL_MODE =
  'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'
const PREPARE_SESSION = `set time_zone = '+00:00', sql_mode = '${SQL_MODE}'`

/**
 * Tells apart the servers that one address may lead to. Replicas of each other always have
 * different ids.
 */
const IDENTIFY_SERVER = `select concat_ws(' ', @@hostname, @@port, @@server_id) as server`

const PING_TIMEOUT_MS = 250
const CONTROL_TIMEOUT_MS = 1_000
const MAX_KILL_ATTEMPTS = 20
const KILL_RETRY_MS = 40

/** The server of each connection, once it is known. */
const servers = new WeakMap<PoolConnection, string>()

/**
 * Makes a new connection of the pool ready; what its first borrower sends waits until that is done.
 */
export function prepareSession(connection: PoolConnection): void {
  // mysql2 takes a broken connection out of the pool on its first error and throws the second one
  // at the process.
  connection.on('error', () => {})
  connection.query(PREPARE_SESSION, (error) => error && connection.destroy())
  connection.query<RowDataPacket[]>(IDENTIFY_SERVER, (error, rows) => {
    if (!error) servers.set(connection, rows[0]?.['server'])
  })
}

/** Whether the server answers on this connection within a moment. */
export function answersPing(connection: PoolConnection): Promise<boolean> {
  return new Promise((resolve) => {
    // An answer that came while the event loop was blocked is read before the immediate.
    const timer = setTimeout(() => setImmediate(() => resolve(false)), PING_TIMEOUT_MS)
    connection.ping((error) => {
      clearTimeout(timer)
      resolve(!error)
    })
  })
}

/** Closes a connection whose server does not answer, without waiting for its goodbye. */
export function discard(connection: PoolConnection): void {
  connection.destroy()
  ;(
    connection as unknown as { stream: NodeJS.WritableStream & { destroy(): void } }
  ).stream.destroy()
}

/**
 * Ends a session on the server, through a connection of its own, since the pool may have none to
 * spare. The address may lead to several servers (a balancer, a DNS name, a failover), where the
 * session's id is somebody else's. So nothing is killed unless the server is the session's own;
 * otherwise it connects again, which a balancer may lead to the right one.
 *
 * @param hasEnded whether the session is gone, so that nothing is left to kill.
 * @returns false when no server can be reached, so that the session's end will not be heard of.
 * Never rejects.
 */
export async function killSession(
  uri: string,
  connection: PoolConnection,
  hasEnded: () => boolean,
): Promise<boolean> {
  const server = servers.get(connection)
  for (let attempt = 1; server && attempt <= MAX_KILL_ATTEMPTS && !hasEnded(); attempt++) {
    const outcome = await tryKill(uri, { server, threadId: connection.threadId, hasEnded })
    if (outcome !== 'other server') return outcome === 'killed'
    // At random, or two that kill at once could take turns at a balancer so that each meets the
    // other's server every time.
    await sleep(Math.random() * KILL_RETRY_MS * attempt)
  }
  return true
}

interface Target {
  server: string
  threadId: number
  hasEnded: () => boolean
}

async function tryKill(uri: string, { server, threadId, hasEnded }: Target) {
  const { promise, resolve } = Promise.withResolvers<'killed' | 'other server' | 'unreachable'>()
  const fail = (error: unknown) => resolve(isDisconnect(error) ? 'unreachable' : 'other server')
  const timer = setTimeout(resolve, CONTROL_TIMEOUT_MS, 'unreachable')
  const control = createConnection({ uri, connectTimeout: CONTROL_TIMEOUT_MS }).on('error', fail)
  control.query<RowDataPacket[]>(IDENTIFY_SERVER, (error, rows) => {
    if (error) fail(error)
    else if (rows[0]?.['server'] !== server) resolve('other server')
    else if (hasEnded()) resolve('killed')
    else control.query(`kill ${threadId}`, () => resolve('killed'))
  })
  const outcome = await promise
  clearTimeout(timer)
  control.destroy()
  return outcome
}
