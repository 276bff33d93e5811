import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { findFreePort } from '../scripts/database/private-server.ts'
import { useDatabase } from './support/database.ts'
import { useProcess } from './support/process.ts'
import { until } from './support/until.ts'
import { hasValkey, useValkey } from './support/valkey.ts'

const OBSERVE = join(import.meta.dirname, '../docker/observe')
/** Also how long a scrape may take. */
const SCRAPE_INTERVAL = '5s'
const EVALUATION_INTERVAL = '1s'

/** Debian's package `prometheus` has both programs. */
const hasPrometheus = ['prometheus', 'promtool'].every(
  (name) => spawnSync(name, ['--version']).status === 0,
)

test.runIf(hasPrometheus)('the configuration of Prometheus and its rules are valid', () => {
  promtool('check', 'config', join(OBSERVE, 'prometheus.yml'))
})

test.runIf(hasPrometheus)('alerts fire when they should, and not before', () => {
  promtool('test', 'rules', join(OBSERVE, 'rules.test.yml'))
})

test.runIf(hasPrometheus)('every query of the dashboard is valid', async () => {
  const rules = (await readQueries()).map((query, index) => ({
    record: `query:${index}`,
    expr: query.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*'),
  }))
  const file = join(await useFolder(), 'queries.yml')
  await writeFile(file, stringify({ groups: [{ name: 'all', rules }] }))
  promtool('check', 'rules', file)
})

describe.runIf(hasValkey)('of two processes', () => {
  test('every metric that rules and dashboard name is in a scrape', async () => {
    const pages = await Promise.all((await useProcesses()).map(readMetrics))
    const names = new Set(pages.flatMap(listNames))
    const queried = new Set((await readQueries()).flatMap(namesIn))
    expect(queried.size).toBeGreaterThan(20)
    expect([...queried].filter((name) => !names.has(name))).toEqual([])
  })

  test.runIf(hasPrometheus)(
    'Prometheus scrapes both without an error, and every rule evaluates',
    async () => {
      const query = await usePrometheus(await useProcesses())
      const targets: Target[] = await until(async () => {
        const { activeTargets } = await query('targets')
        const isDone = activeTargets.every(({ health }: Target) => health !== 'unknown')
        return activeTargets.length === 2 && isDone && activeTargets
      }, 'both are scraped')
      expect(targets.map(({ lastError }) => lastError)).toEqual(['', ''])
      const samples: Sample[] = await until(async () => {
        const { result } = await query('query?query=up')
        return result.length === 2 && result
      }, 'both are stored')
      expect(samples.map(({ value }) => value[1])).toEqual(['1', '1'])
      const rules: Rule[] = await until(async () => {
        const { groups } = await query('rules')
        const all = groups.flatMap((group: { rules: Rule[] }) => group.rules)
        return all.every(({ health }: Rule) => health !== 'unknown') && all
      }, 'all rules have run')
      expect(rules.filter(({ health }) => health !== 'ok')).toEqual([])
      expect(rules.filter(({ state }) => state === 'firing')).toEqual([])
    },
  )
})

interface Target {
  health: string
  lastError: string
}

interface Sample {
  value: [time: number, value: string]
}

interface Rule {
  name: string
  health: string
  state: string
}

function promtool(...args: string[]) {
  const { status, stdout, stderr } = spawnSync('promtool', args, { encoding: 'utf8' })
  expect([status, stdout + stderr]).toEqual([0, expect.anything()])
}

/** The ops URLs of one that serves clients and one that runs jobs. */
async function useProcesses(): Promise<string[]> {
  const { url: DATABASE_URL } = await useDatabase()
  const { url: VALKEY_URL } = await useValkey()
  const started = ['web', 'worker'].map((ROLE) =>
    useProcess('src/main.ts', { ROLE, DATABASE_URL, VALKEY_URL }),
  )
  return Promise.all(started.map(({ opsUrl }) => until(opsUrl, 'it listens')))
}

const readMetrics = async (opsUrl: string) => (await fetch(`${opsUrl}/metrics`)).text()

/** A histogram has three. */
const listNames = (page: string) =>
  [...page.matchAll(/^# TYPE (\w+) (\w+)$/gm)].flatMap(([, name = '', type]) =>
    type === 'histogram' ? ['bucket', 'sum', 'count'].map((part) => `${name}_${part}`) : [name],
  )

/** All PromQL of the rules and the dashboard. */
async function readQueries(): Promise<string[]> {
  const read = (file: string) => readFile(join(OBSERVE, file), 'utf8')
  const { groups } = parse(await read('rules.yml'))
  const { panels } = JSON.parse(await read('dashboard.json'))
  return [
    ...groups.flatMap(({ rules }: { rules: { expr: string }[] }) => rules),
    ...panels.flatMap(({ targets = [] }: { targets?: { expr: string }[] }) => targets),
  ].map(({ expr }) => expr)
}

/** Prometheus' own `up`, functions, label names, durations and keywords are not ours. */
const namesIn = (query: string) =>
  query
    .replace(/\{.*?\}|\[.*?\]|\b(by|on|group_left) \(.*?\)/g, '')
    .match(/\b[a-z]\w+\b(?! *\()/g)
    ?.filter((name) => !['up', 'and', 'or', 'unless'].includes(name)) ?? []

/** @returns what asks its API. */
async function usePrometheus(opsUrls: string[]) {
  const folder = await useFolder()
  await cp(OBSERVE, folder, { recursive: true })
  const file = join(folder, 'prometheus.yml')
  const config = parse(await readFile(file, 'utf8'))
  config.global = { scrape_interval: SCRAPE_INTERVAL, evaluation_interval: EVALUATION_INTERVAL }
  const [job] = config.scrape_configs
  delete job.dns_sd_configs
  job.static_configs = [{ targets: opsUrls.map((url) => new URL(url).host) }]
  await writeFile(file, stringify(config))
  const address = `127.0.0.1:${await findFreePort()}`
  const flags = [`--config.file=${file}`, `--storage.tsdb.path=${folder}/data`]
  const prometheus = spawn('prometheus', [...flags, `--web.listen-address=${address}`], {
    stdio: 'ignore',
  })
  onTestFinished(async () => {
    const exited = once(prometheus, 'exit')
    prometheus.kill('SIGKILL')
    await exited
  })
  const isReady = () =>
    fetch(`http://${address}/-/ready`).then(
      ({ ok }) => ok,
      () => false,
    )
  await until(isReady, 'Prometheus is ready')
  return async (path: string) => {
    const response = await fetch(`http://${address}/api/v1/${path}`)
    // biome-ignore lint/suspicious/noExplicitAny: Prometheus' answers, of which tests check what they read
    return ((await response.json()) as { data: any }).data
  }
}

async function useFolder() {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-observe-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  return folder
}
