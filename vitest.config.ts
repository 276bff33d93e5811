import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // They need a Chromium: npm run test:browser.
    exclude: ['test/browser/**'],
    globalSetup: 'test/support/server.ts',
    setupFiles: 'test/support/free-event-loop.ts',
    // Each file in a process of its own: they start servers and threads, and catch signals.
    pool: 'forks',
    testTimeout: 20_000,
    hookTimeout: 60_000,
  },
})
