import { align, number } from './align.ts'
import type { Results } from './results.ts'

/** The results for a terminal. */
export function tableOf({ machine, versions, settings, throughput, responsiveness, departure }: Results): string {
  const { throughput: load, responsiveness: light } = settings
  return [
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB · Node ${versions.node} · ${versions.database}`,
    `\nThroughput: ${load.connections} connections, medians of ${load.pairs * load.rounds} rounds of ${load.roundMs / 1_000} s`,
    align([
      ['', 'req/s', 'p50 ms', 'p99 ms', 'floor req/s', 'p50 ms', 'p99 ms', 'app ÷ floor'],
      ...throughput.map(({ endpoint, app, floor, ratio }) => [
        endpoint,
        ...loadCells(app),
        ...loadCells(floor),
        number(ratio, 2),
      ]),
    ]),
    `\nGET ${light.lightPath} at ${light.lightPerSecond} req/s while ${light.heavyConnections} clients ask for ${light.heavyPath}`,
    align([
      ['', 'p50 ms', 'p99 ms', 'max ms', 'p99 ÷ idle', 'refused', 'heavy req/s'],
      ...responsiveness.phases.map(({ phase, p50Ms, p99Ms, maxMs, timesIdle, failed, sent, heavyPerSecond }) => [
        phase,
        number(p50Ms, 2),
        number(p99Ms, 2),
        number(maxMs, 1),
        number(timesIdle, 1),
        `${failed} of ${sent}`,
        number(heavyPerSecond, 1),
      ]),
    ]),
    `\n${settings.threads} threads do ${number(responsiveness.speedUp, 2)} × the heavy requests of one.`,
    `A client that leaves frees its threads within ${number(departure.medianMs, 0)} ms, at most ${number(departure.maxMs, 0)}.`,
  ].join('\n')
}

const loadCells = (figures?: Results['throughput'][number]['app']) => [
  number(figures?.perSecond, 0),
  number(figures?.p50Ms, 2),
  number(figures?.p99Ms, 2),
]
