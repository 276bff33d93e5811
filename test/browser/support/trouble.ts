import type { BrowserContext } from 'playwright-core'

/**
 * Where a test holds the event loop: who waits for a connection of the database meanwhile is
 * refused in the end.
 */
export const HELD_UP = /status of 503/

/**
 * Everything that a page must not do, as it happens: errors, breaches of its
 * Content-Security-Policy, calls elsewhere.
 */
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
  await context.exposeBinding('tellOfViolation', (_, text: string) => trouble.push(text))
  await context.addInitScript(`document.addEventListener('securitypolicyviolation', (violation) =>
    tellOfViolation(['Against the policy:', violation.violatedDirective, violation.blockedURI, violation.sourceFile].join(' ')))`)
  return trouble
}
