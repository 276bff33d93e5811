import { registerHooks } from 'node:module'

/** Loaded before the service (`--import`): prints the package of each module that is loaded. */
const seen = new Set<string>()
registerHooks({
  load(url, context, next) {
    const name = url.match(/.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]
    if (name && !seen.has(name)) process.stderr.write(`loaded ${name}\n`)
    if (name) seen.add(name)
    return next(url, context)
  },
})
