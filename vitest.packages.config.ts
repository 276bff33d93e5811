import config from './vitest.config.ts'

/** For `npm test -w packages/NAME` of a package that needs no database: nothing is set up for it. */
export default { ...config, test: { ...config.test, globalSetup: [], setupFiles: [] } }
