import { defineConfig } from 'vitest/config'

/** `npm run test:browser`: the live page in a real Chromium. */
export default defineConfig({
  test: {
    include: ['test/browser/**/*.test.ts'],
    globalSetup: ['test/browser/support/require-chromium.ts', 'test/support/server.ts'],
    pool: 'forks',
    // Each has a browser and a service with threads of its own: more of them would only wait for each other.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
