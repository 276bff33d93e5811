import { implement } from '@offloop/workpool/task'
import { serveTasks } from '@offloop/workpool/worker-main'
import { addSlice, double, endThread, neverAsk, sum, untilCancelled } from './tasks.ts'

/** What our threads run in the bench. */
implement(double, (n) => n * 2)
implement(sum, addSlice)
implement(untilCancelled, (_, context) => {
  for (;;) context.throwIfCancelled()
})
implement(neverAsk, () => {
  for (;;);
})
implement(endThread, (index) => process.exit(index % 256))

serveTasks()
