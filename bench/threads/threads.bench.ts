import { fork } from 'node:child_process'
import { globSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Bench } from '../support/bench.ts'
import { end, nextMessage, rejectOnInterrupt } from '../support/child.ts'
import { number } from '../support/table.ts'
import type { Measure, Measured } from './measure.ts'

const TIMEOUT_MS = 300_000
const BENCH = join(import.meta.dirname, '..')

interface ThreadsFigures {
  'round-trip'?: { contestants: { name: string; p50Us: number }[] }
  'tiny-tasks'?: { contestants: { name: string; ms: number }[] }
}

export const bench: Bench<ThreadsFigures> = {
  description: 'worker threads, beside bare ones, Piscina and poolifier; five minutes',
  packages: ['piscina', 'poolifier'],

  async run({ started, progress }) {
    const files = globSync('*/*.threads.ts', { cwd: BENCH }).sort()
    const findings: [name: string, found: Measured][] = []
    for (const file of files) {
      progress.next(file)
      const name = basename(file, '.threads.ts')
      findings.push([name, await measureInChild(file, started)])
    }
    return {
      tables: findings.map(([, found]) => found),
      figures: Object.fromEntries(
        findings.map(([name, { figures, targets }]) => [name, { ...figures, targets }]),
      ),
    }
  },

  summarise(figures) {
    const [trips, tiny] = [figures['round-trip'], figures['tiny-tasks']]
    const us = (name: string) =>
      `${number(trips?.contestants.find((each) => each.name === name)?.p50Us, 0)} µs`
    const ms = (name: string) =>
      `${number(tiny?.contestants.find((each) => each.name === name)?.ms, 0)} ms`
    return [
      [
        'round trip of a task that does nothing',
        us('compute.run'),
        `postMessage alone ${us('postMessage alone')}, Piscina ${us('piscina')}, poolifier ${us('poolifier')}`,
      ],
      [
        '20 000 tiny tasks at once, each by `run`',
        ms('compute.run, each'),
        `by one \`map\` ${ms('compute.map')}, Piscina ${ms('piscina, each')}, poolifier ${ms('poolifier, each')}`,
      ],
    ]
  },
}

/** In a process of its own: none meets the memory, the compiled code or the garbage of another. */
async function measureInChild(file: string, started: AsyncDisposableStack): Promise<Measured> {
  const child = fork(import.meta.filename, [file], {
    execPath: join(BENCH, '../bin/node'),
    execArgv: ['--expose-gc'],
  })
  started.defer(() => end(child))
  const measured = await nextMessage<Measured>(child, TIMEOUT_MS)
  await end(child)
  return measured
}

if (import.meta.main) {
  process.on('disconnect', () => process.exit())
  const { measure } = await import(join(BENCH, process.argv[2] ?? ''))
  process.send?.(await runMeasure(measure), () => process.exit())
}

async function runMeasure(measure: Measure): Promise<Measured> {
  await using started = new AsyncDisposableStack()
  return await Promise.race([measure(started), rejectOnInterrupt()])
}
