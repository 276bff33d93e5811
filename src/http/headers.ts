import type { AppContext } from './env.ts'

/**
 * Sets response headers, before the handler runs. They go straight to Node's response: a `Headers` object in between
 * costs a tenth of a small request's time (docs/decisions/003-http-fast-path.md).
 */
export function setHeaders(c: AppContext, headers: Record<string, string>): void {
  const { outgoing } = c.env ?? {}
  for (const name in headers) {
    const value = headers[name] as string
    if (outgoing) outgoing.setHeader(name, value)
    else c.header(name, value)
  }
}
