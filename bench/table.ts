import { align, number } from './align.ts'
import type { Results } from './results.ts'

/** What was found about a light endpoint, for a terminal. */
export function tableOf({
  machine,
  versions,
  settings,
  responsiveness,
  departure,
}: Results): string {
  const light = settings.responsiveness
  return [
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB · Node ${versions.node} · ${versions.database}`,
    `\nGET ${light.lightPath} at ${light.lightPerSecond} req/s while ${light.heavyConnections} clients ask for ${light.heavyPath}`,
    align([
      ['', 'p50 ms', 'p99 ms', 'max ms', 'p99 ÷ idle', 'failed', 'heavy req/s', 'failed'],
      ...responsiveness.phases.map(
        ({ phase, p50Ms, p99Ms, maxMs, timesIdle, failed, sent, heavyPerSecond, heavyFailed }) => [
          phase,
          number(p50Ms, 2),
          number(p99Ms, 2),
          number(maxMs, 1),
          number(timesIdle, 1),
          `${failed} of ${sent}`,
          number(heavyPerSecond, 1),
          number(heavyFailed, 0),
        ],
      ),
    ]),
    `\n${settings.threads} threads do ${number(responsiveness.speedUp, 2)} × the heavy requests of one.`,
    `A client that leaves frees its threads within ${number(departure.medianMs, 0)} ms, at most ${number(departure.maxMs, 0)}.`,
  ].join('\n')
}
