import { parentPort } from 'node:worker_threads'

/** Spins in one task until it is terminated. */
parentPort?.on('message', () => {
  parentPort?.postMessage('spinning')
  spinForever()
})

function spinForever(): never {
  for (;;) process.threadCpuUsage()
}
