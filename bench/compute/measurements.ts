import { measureEndless } from './endless.ts'
import { measureLightEndpoint } from './light-endpoint.ts'
import { measureMandelbrot } from './mandelbrot.ts'
import { measureReaders } from './readers.ts'
import type { Report } from './report.ts'
import { measureRoundTrip } from './round-trip.ts'
import { measureStorm } from './storm.ts'
import { measureSum } from './sum.ts'
import { measureTinyTasks } from './tiny-tasks.ts'
import { measureUneven } from './uneven.ts'

/** Each puts what it starts on the stack, which is disposed of when it has ended. */
export const MEASUREMENTS: Record<string, (started: AsyncDisposableStack) => Promise<Report>> = {
  'round-trip': measureRoundTrip,
  'tiny-tasks': measureTinyTasks,
  sum: measureSum,
  readers: measureReaders,
  uneven: measureUneven,
  mandelbrot: measureMandelbrot,
  'light-endpoint': measureLightEndpoint,
  storm: measureStorm,
  endless: measureEndless,
}
