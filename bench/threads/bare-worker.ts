import { parentPort } from 'node:worker_threads'
import { addSlice, type Slice } from './tasks.ts'

/** A thread that doubles a number or adds a slice, with nothing around it. */
parentPort?.on('message', (input: number | Slice) =>
  parentPort?.postMessage(typeof input === 'number' ? input * 2 : addSlice(input)),
)
