import { implement } from '../../src/compute/implement.ts'
import { serveTasks } from '../../src/compute/serve-tasks.ts'
import '../../src/features/mandelbrot/compute.ts'
import '../../src/features/primes/compute.ts'
import { double, sum, sumOf } from './tasks.ts'

/** What our threads run in the benchmark. */
implement(double, (n) => n * 2)
implement(sum, sumOf)

serveTasks()
