import { loadConfig } from '../src/config.ts'
import { AppError } from '../src/errors.ts'

/**
 * Exits with 1 and names every setting that the service would refuse. Under Docker Compose it runs
 * before anything else.
 */
try {
  loadConfig(process.env)
} catch (error) {
  console.error(error instanceof AppError ? error.message : error)
  process.exitCode = 1
}
