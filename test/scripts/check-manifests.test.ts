import { spawnSync } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')

/** What the script says of the manifests when, in one file, `from` is `to` everywhere. */
async function check(file?: string, from = '', to = '') {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-manifests-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  await cp(join(ROOT, 'deploy'), folder, { recursive: true })
  if (file) {
    const text = await readFile(join(folder, file), 'utf8').catch(() => '')
    expect(text).toContain(from)
    await writeFile(join(folder, file), from ? text.replaceAll(from, to) : to)
  }
  const { status, stderr } = spawnSync('node', ['scripts/check-manifests.ts', folder], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  return { status, problems: stderr.trim().split('\n').filter(Boolean) }
}

test('the manifests are as they should be', async () => {
  expect(await check()).toEqual({ status: 0, problems: [] })
})

test.each([
  ['a field that there is not', 'web.yaml', 'livenessProbe:', 'livenessprobe:', /livenessprobe/],
  ['a field of another kind', 'valkey.yaml', 'podSelector:', 'selector:', /"selector"/],
  ['a number where text belongs', 'config.yaml', "TRUST_PROXY: '1'", 'TRUST_PROXY: 1', /string/],
  [
    'a field that is missing',
    'worker-autoscaling.yaml',
    'type: prometheus',
    '',
    /"type"' is missing/,
  ],
  ['a kind that there is not', 'web.yaml', 'kind: Service', 'kind: Servant', /IServant/],
  ['a setting that there is not', 'worker.yaml', 'name: ROLE', 'name: ROLL', /ROLL is no setting/],
  ['a value that the service refuses', 'worker.yaml', 'value: worker', 'value: batch', /ROLE: /],
  [
    'a Secret that there is not',
    'migrate.yaml',
    'secretRef: { name: offloop }',
    'secretRef: { name: secrets }',
    /Secret secrets/,
  ],
  [
    'too little time to drain',
    'web.yaml',
    'Seconds: 50',
    'Seconds: 40',
    /40000 ms, and is 40000 ms/,
  ],
  ['a file that nobody applies', 'more.yaml', '', '# Nothing yet', /does not list more.yaml/],
  ['a file that is missing', 'kustomization.yaml', '- web.yaml', '- wep.yaml', /lists wep.yaml/],
])('%s is refused, with its place', async (_, file, from, to, problem) => {
  const { status, problems } = await check(file, from, to)
  expect(status).toBe(1)
  expect(problems.join('\n')).toMatch(problem)
  expect(problems[0]).toMatch(/^deploy\//)
})
