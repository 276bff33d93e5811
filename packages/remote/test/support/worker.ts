import { implement } from '@offloop/workpool/task'
import '../../../workpool/test/support/worker.ts'
import * as tasks from './tasks.ts'

implement(tasks.spinAsking, (_, context) => {
  for (;;) context.throwIfCancelled()
})
implement(tasks.spinDeaf, () => {
  for (;;);
})
implement(tasks.killOthers, ({ number, ms, kills, spared }) => {
  compute(ms)
  if (kills && process.pid !== spared) process.kill(process.pid, 'SIGKILL')
  return number
})
implement(tasks.giveBytes, ({ bytes, ms }) => {
  compute(ms)
  return new Uint8Array(bytes)
})
implement(tasks.measure, ({ bytes, ms }) => {
  compute(ms)
  return bytes.length
})
implement(tasks.echoAfter, ({ value, ms }) => {
  compute(ms)
  return value
})
implement(tasks.giveShared, () => new Int32Array(new SharedArrayBuffer(4)))
implement(tasks.progressFor, (ms, context) => {
  for (let done = 0; done < ms; done += 10) {
    compute(10)
    context.progress((done + 10) / ms)
  }
  return 'done'
})

function compute(ms: number) {
  for (const end = performance.now() + ms; performance.now() < end; );
}
