import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

// Many tests start a service: what the first one compiles, the others find here.
process.env['NODE_COMPILE_CACHE'] ??= join(import.meta.dirname, 'node_modules/.cache/node')

/** The V8 flags of the service: tests run it within their own processes, too. */
const V8_FLAGS = readFileSync(join(import.meta.dirname, 'bin/node'), 'utf8').match(/--no-[\w-]+/g)

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'packages/*/test/**/*.test.ts'],
    // They need a Chromium: npm run test:browser.
    exclude: ['test/browser/**'],
    globalSetup: 'test/support/server.ts',
    setupFiles: 'test/support/free-event-loop.ts',
    // Each file in a process of its own: they start servers and threads, and catch signals.
    pool: 'forks',
    execArgv: V8_FLAGS ?? [],
    // Many of them wait most of the time, for leases and deadlines.
    maxWorkers: '100%',
    // Far beyond what any test takes: they run on busy machines, too.
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
