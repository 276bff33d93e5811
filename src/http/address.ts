import type { AddressInfo } from 'node:net'

/** Why a port could not be listened on, and which setting helps. */
export function explainListen(
  error: NodeJS.ErrnoException,
  host: string,
  port: number,
  setting = 'PORT',
) {
  if (error.code === 'EADDRINUSE')
    return `Port ${port} is in use: stop what listens there, or set ${setting} to another one`
  if (error.code === 'EACCES')
    return `Port ${port} may not be used by this user: set ${setting} to one above 1023`
  return `Cannot listen on ${host}:${port}: ${error.message}`
}

/** Where a server can be reached that listens there. */
export const urlOf = ({ address, family, port }: AddressInfo) =>
  `http://${['0.0.0.0', '::', '127.0.0.1', '::1'].includes(address) ? 'localhost' : family === 'IPv6' ? `[${address}]` : address}:${port}`
