import { machine } from './machine.ts'
import { measurePhases, type Phase, type PhaseFigures } from './phases.ts'

/** How the light endpoint is timed; the results name all of it. */
export const RESPONSIVENESS = {
  lightPath: '/v1/products/500',
  lightPerSecond: 200,
  heavyPath: '/v1/primes?to=1400000',
  heavyConnections: 4,
  rounds: 9,
  roundMs: 5_000,
  /** Inline, what waits grows for as long as the round lasts: a longer one would only give larger figures. */
  inlineRounds: 3,
  inlineRoundMs: 3_000,
} as const

export type PhaseName = 'idle' | 'offloaded' | 'offloaded to one thread' | 'inline'

/**
 * Times a light endpoint at a steady rate while heavy requests keep the service busy.
 *
 * @param appUrl has as many threads as there are cores.
 */
export function measureResponsiveness(appUrl: string, oneThreadUrl: string): Promise<PhaseFigures<PhaseName>[]> {
  const { heavyPath, rounds, roundMs, inlineRounds, inlineRoundMs } = RESPONSIVENESS
  const inline = { heavyPath: `${heavyPath}&mode=inline`, rounds: inlineRounds, roundMs: inlineRoundMs, mayFail: true }
  const phases: Phase<PhaseName>[] = [
    { name: 'idle', appUrl, busyCores: 0, rounds, roundMs },
    { name: 'offloaded', appUrl, heavyPath, busyCores: machine.cores, rounds, roundMs },
    { name: 'offloaded to one thread', appUrl: oneThreadUrl, heavyPath, busyCores: 1, rounds, roundMs },
    { name: 'inline', appUrl, busyCores: 1, ...inline },
  ]
  return measurePhases(phases, RESPONSIVENESS)
}
