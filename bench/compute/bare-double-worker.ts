import { parentPort } from 'node:worker_threads'

/** The floor: a thread that answers messages, with nothing around it. */
parentPort?.on('message', (n: number) => parentPort?.postMessage(n * 2))
