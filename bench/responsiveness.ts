import { machine } from './machine.ts'
import type { LoadSettings, Phase } from './phases.ts'

export interface ResponsivenessSettings extends LoadSettings {
  heavyPath: string
  rounds: number
  roundMs: number
  inlineRounds: number
  inlineRoundMs: number
}

/** How the light endpoint is timed; the results name all of it. */
export const RESPONSIVENESS: ResponsivenessSettings = {
  lightPath: '/v1/products/500',
  lightPerSecond: 200,
  heavyPath: '/v1/primes?to=1400000',
  heavyConnections: 4,
  rounds: 9,
  roundMs: 5_000,
  /**
   * Inline, what waits grows for as long as the round lasts: a longer one would only give larger
   * figures.
   */
  inlineRounds: 3,
  inlineRoundMs: 3_000,
}

export type PhaseName = 'idle' | 'offloaded' | 'offloaded to one thread' | 'inline'

/** What `--quick` does instead. */
export const QUICK_RESPONSIVENESS: ResponsivenessSettings = {
  ...RESPONSIVENESS,
  rounds: 1,
  roundMs: 2_000,
  inlineRounds: 1,
}

/**
 * The phases of a light endpoint at a steady rate while heavy requests keep the service busy.
 *
 * @param appUrl has as many threads as there are cores.
 */
export function responsivenessPhases(
  { heavyPath, rounds, roundMs, inlineRounds, inlineRoundMs }: ResponsivenessSettings,
  appUrl = '',
  oneThreadUrl = '',
): Phase<PhaseName>[] {
  const inline = {
    heavyPath: `${heavyPath}&mode=inline`,
    rounds: inlineRounds,
    roundMs: inlineRoundMs,
  }
  return [
    { name: 'idle', appUrl, busyCores: 0, rounds, roundMs },
    { name: 'offloaded', appUrl, heavyPath, busyCores: machine.cores, rounds, roundMs },
    {
      name: 'offloaded to one thread',
      appUrl: oneThreadUrl,
      heavyPath,
      busyCores: 1,
      rounds,
      roundMs,
    },
    { name: 'inline', appUrl, busyCores: 1, ...inline },
  ]
}
