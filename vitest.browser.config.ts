import { defineConfig } from 'vitest/config'

/** `npm run test:browser`: the live page in a real Chromium. */
export default defineConfig({
  test: {
    include: ['test/browser/**/*.test.ts'],
    globalSetup: ['test/browser/support/require-chromium.ts', 'test/support/server.ts'],
    pool: 'forks',
    // Each has a browser and a service of its own: two at a time take as long, and starve each
    // other's worker threads.
    fileParallelism: false,
    testTimeout: 90_000,
    hookTimeout: 60_000,
  },
})
