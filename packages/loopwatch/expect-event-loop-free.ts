import { type Incident, placeOf } from './incident.ts'
import { Watchdog } from './watchdog.ts'

/**
 * For tests: runs `code`, returns its result, awaited if it is a promise, and fails if the event
 * loop was blocked for longer than `maxMs` meanwhile, by whatever ran on it. Time in which the
 * machine had no core for it does not count (on Linux), nor does what comes before: load and call
 * once what is compiled at its first call.
 *
 *     await expectEventLoopFree(() => app.request('/v1/products/1'), { maxMs: 50 })
 *
 * @throws Error that names the functions and lines that held it.
 */
export async function expectEventLoopFree<Result>(
  code: () => Result | Promise<Result>,
  { maxMs = 50 }: { maxMs?: number } = {},
): Promise<Result> {
  const incidents: Incident[] = []
  const onIncident = (incident: Incident) => incidents.push(incident)
  await using watchdog = await Watchdog.open({ thresholdMs: maxMs, onIncident, tireless: true })
  watchdog.start()
  const result = await code()
  await watchdog.settle()
  if (incidents.length > 0) throw new Error(describeIncidents(incidents, maxMs))
  return result
}

/** One line for each. */
export const describeIncidents = (incidents: readonly Incident[], maxMs: number) =>
  [
    `The event loop was held for longer than ${maxMs} ms:`,
    ...incidents.map((incident) => `  ${incident.heldMs} ms by ${placeOf(incident)}`),
  ].join('\n')
