import { pino } from 'pino'
import { PollingEngine } from '../polling-engine.ts'
import { TIMING } from '../timing.ts'
import { engineContract } from './engine-contract.ts'

engineContract(
  'polling',
  (pollMs = TIMING.pollMs) =>
    new PollingEngine({ log: pino({ level: 'silent' }), timing: { ...TIMING, pollMs } }),
)
