import { implement } from '@offloop/workpool/implement'
import { serveTasks } from '@offloop/workpool/serve-tasks'
import '../../src/features/mandelbrot/compute.ts'
import '../../src/features/primes/compute.ts'
import { double, endThread, neverAsk, sum, sumOf, untilCancelled } from './tasks.ts'

/** What our threads run in the benchmark. */
implement(double, (n) => n * 2)
implement(sum, sumOf)
implement(untilCancelled, (_, context) => {
  for (;;) context.throwIfCancelled()
})
implement(neverAsk, () => {
  for (;;);
})
implement(endThread, (index) => process.exit(index % 256))

serveTasks()
