import type { BrowserContext } from 'playwright-core'

/**
 * For tests that block the event loop: requests that wait for a database connection meanwhile are
 * refused.
 */
export const REFUSED_WHILE_BLOCKED = /status of 503/

/**
 * For tests that kill the service. The browser complains of every call that nobody answers, and
 * there is no way to keep it from that.
 */
export const NOBODY_ANSWERS =
  /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_FAILED|closed before/

/** Collects what a page must not do: errors, policy violations, requests to other hosts. */
export async function watchForTrouble(context: BrowserContext, url: string): Promise<string[]> {
  const trouble: string[] = []
  const { host } = new URL(url)
  context.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning')
      trouble.push(`${message.text()} (${message.location().url})`)
  })
  context.on('weberror', (error) => trouble.push(String(error.error().stack)))
  context.on('request', (request) => {
    const { protocol, host: asked } = new URL(request.url())
    if (protocol !== 'data:' && protocol !== 'blob:' && asked !== host)
      trouble.push(`Asked for ${request.url()}`)
  })
  context.on('page', (page) =>
    page.on('websocket', (socket) => {
      if (new URL(socket.url()).host !== host) trouble.push(`Connected to ${socket.url()}`)
    }),
  )
  await context.exposeBinding('reportViolation', (_, text: string) => trouble.push(text))
  await context.addInitScript(`document.addEventListener('securitypolicyviolation', (violation) =>
    reportViolation(['Against the policy:', violation.violatedDirective, violation.blockedURI, violation.sourceFile].join(' ')))`)
  return trouble
}
