import { findChromium } from './chromium.ts'

/** Before all tests. Printed by hand, because Vitest would print its own stack below. */
export default function setup() {
  if (findChromium()) return
  console.error(
    'npm run test:browser needs Chromium, and there is none in PATH: on Debian, apt-get install chromium',
  )
  process.exit(1)
}
