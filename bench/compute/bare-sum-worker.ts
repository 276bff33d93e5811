import { parentPort } from 'node:worker_threads'
import { type Slice, sumOf } from './tasks.ts'

/** A thread that adds, with nothing around it. */
parentPort?.on('message', (slice: Slice) => parentPort?.postMessage(sumOf(slice)))
