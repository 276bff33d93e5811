import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { DirectoryStorage, QUOTA, Quota } from '../../../src/features/reports/storage.ts'
import { useSmallDisk } from '../../support/small-disk.ts'

const KIB = 1024
const MIB = 1024 * KIB

const onSmallDisk = test.skipIf(!useSmallDisk.isPossible)

async function* chunksOf(bytes: number): AsyncGenerator<Uint8Array> {
  for (let left = bytes; left > 0; left -= 64 * KIB) {
    yield Buffer.alloc(Math.min(left, 64 * KIB), 'x')
    await nextTurn()
  }
}

/** Of a client that sends nothing more after these bytes, and stays. */
async function* stallAfter(bytes: number): AsyncGenerator<Uint8Array> {
  yield* chunksOf(bytes)
  await new Promise(() => {})
}

onSmallDisk(
  'of many uploads that together do not fit on the disk, the oldest are kept',
  async () => {
    const directory = await useSmallDisk('4m')
    const storage = new DirectoryStorage(directory)
    const keys = Array.from(
      { length: 20 },
      (_, index) => `upload-${String(index).padStart(2, '0')}`,
    )
    // The younger ones never end, so that none of them is complete before an older one.
    const bodyOf = (index: number) => (index < 2 ? chunksOf(1.5 * MIB) : stallAfter(1.5 * MIB))
    const outcomes = await Promise.allSettled(
      keys.map((key, index) => storage.save(key, bodyOf(index))),
    )
    expect(outcomes.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      ...Array.from({ length: 18 }, () => 'rejected'),
    ])
    for (const outcome of outcomes.slice(2))
      expect(outcome).toMatchObject({ reason: { code: 'storage_full', status: 507 } })
    expect((await readdir(directory)).toSorted()).toEqual(keys.slice(0, 2))
  },
)

onSmallDisk(
  'an upload that is declared larger than what is free is refused before it arrives',
  async () => {
    const storage = new DirectoryStorage(await useSmallDisk('1m'))
    let isRead = false
    const body = (async function* () {
      isRead = true
      yield* chunksOf(2 * MIB)
    })()
    await expect(storage.save('large', body, 2 * MIB)).rejects.toMatchObject({
      code: 'storage_full',
    })
    expect(isRead).toBe(false)
  },
)

onSmallDisk(
  'an upload that fills the disk is refused at once, also if its client sends nothing more',
  async () => {
    const directory = await useSmallDisk('1m')
    await expect(
      new DirectoryStorage(directory).save('stalled', stallAfter(2 * MIB)),
    ).rejects.toMatchObject({
      code: 'storage_full',
    })
    expect(await readdir(directory)).toEqual([])
  },
)

test('a process that has too many files open refuses uploads as overloaded, and takes them again afterwards', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'offloop-files-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  const storage = new URL('../../../src/features/reports/storage.ts', import.meta.url)
  const script = `
    import { closeSync, openSync } from 'node:fs'
    import { DirectoryStorage, QUOTA, Quota } from '${storage.href}'
    const storage = new DirectoryStorage('${directory}')
    const save = (key) => storage.save(key, (async function* () { yield Buffer.from('a') })()).then(() => 'saved', ({ code }) => code)
    const files = []
    try { for (;;) files.push(openSync('/dev/null')) } catch {}
    const refused = await save('first')
    for (const file of files) closeSync(file)
    console.log(refused, await save('second'))`
  const command = `ulimit -n 100; exec "${process.execPath}" --input-type=module-typescript -e "$SCRIPT"`
  const output = execFileSync('sh', ['-c', command], {
    env: { ...process.env, SCRIPT: script },
    encoding: 'utf8',
  })
  expect(output.trim()).toBe('overloaded saved')
  expect(await readdir(directory)).toEqual(['second'])
})

describe('the quota of an owner', () => {
  const empty = { unfinished: 0, bytes: 0 }
  const refusal = (text: string) => expect.objectContaining({ message: `You may have ${text}` })

  test('limits the bytes on disk together with those that arrive', () => {
    const quota = new Quota()
    const stored = { unfinished: 1, bytes: QUOTA.bytes - 10 }
    const arriving = quota.reserve('ann', stored, 10)
    const bytes = refusal('10 GiB of uploads: delete reports you have read')
    expect(() => quota.reserve('ann', stored, 1)).toThrow(bytes)
    quota.reserve('bob', stored, 10)
    arriving[Symbol.dispose]()
    quota.reserve('ann', stored, 10)
  })

  test('limits the unfinished reports together with the uploads that arrive', () => {
    const quota = new Quota()
    for (let count = 0; count < QUOTA.unfinished; count++) quota.reserve('ann', empty, 0)
    const reports = refusal('100 unfinished reports: wait for them, or cancel some')
    expect(() => quota.reserve('ann', empty, 0)).toThrow(reports)
    quota.reserve('bob', empty, 0)
  })
})
