import { defineConfig } from 'vitest/config'

/** `npm run test:browser`: the live page in a real Chromium. */
export default defineConfig({
  test: {
    include: ['test/browser/**/*.test.ts'],
    globalSetup: ['test/browser/support/require-chromium.ts', 'test/support/server.ts'],
    pool: 'forks',
    // One browser and one service at a time: what is measured is the page, not the crowd.
    fileParallelism: false,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
