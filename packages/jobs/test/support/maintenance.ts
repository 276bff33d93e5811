import { pino } from 'pino'
import { transaction } from '../../../../src/db/transaction.ts'
import { Cleanup } from '../../cleanup.ts'
import type { JobChange, JobSchedule } from '../../job.ts'
import { TIMING } from '../../loop.ts'
import { Maintenance } from '../../maintenance.ts'
import { JobStore } from '../../store.ts'
import type { Db } from '../../tables.ts'

/** Maintenance that the test drives itself, and the names of the schedules that it fired. */
export function useMaintenance(db: Db, schedules: JobSchedule[]) {
  const fired: string[] = []
  const maintenance = new Maintenance({
    store: new JobStore({ open: () => db, transaction, keepMs: 60_000 }),
    log: pino({ level: 'silent' }),
    timing: TIMING,
    schedules,
    runs: () => true,
    enqueue: async (_, { name }) => {
      fired.push(name)
      return { id: `job of ${name}` }
    },
    onChange: () => {},
  })
  return { fired, maintenance }
}

/** The clean-up of a process that handles `kinds`, driven by the test, and what it changed. */
export function useCleanup(db: Db, kinds: string[], { keepMs = 60_000 } = {}) {
  const changes: JobChange[] = []
  const cleanup = new Cleanup({
    store: new JobStore({ open: () => db, transaction, keepMs }),
    log: pino({ level: 'silent' }),
    timing: TIMING,
    kinds,
    onChange: (changed) => changes.push(...changed),
  })
  const runToEnd = async () => {
    while (await cleanup.runOnce());
  }
  return { cleanup, changes, runToEnd }
}
