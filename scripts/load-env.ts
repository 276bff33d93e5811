import { existsSync } from 'node:fs'

/**
 * Reads `.env` where there is one; what the environment sets already wins. Imported first, for its
 * effect.
 */
if (existsSync('.env')) process.loadEnvFile()
