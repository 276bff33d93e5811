import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { S3Storage } from '../../../src/features/reports/s3.ts'
import { DirectoryStorage, QUOTA, Quota } from '../../../src/features/reports/storage.ts'
import { useS3 } from '../../support/s3-server.ts'
import { useSmallDisk } from '../../support/small-disk.ts'

const KIB = 1024
const MIB = 1024 * KIB
const NEVER = new AbortController().signal
const HOUR_MS = 3_600_000

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

async function useFolder() {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-storage-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  return folder
}

async function useDirectory() {
  const directory = await useFolder()
  const files = async () => (await readdir(directory)).sort()
  return {
    storage: new DirectoryStorage(directory),
    keys: async () => (await files()).map((file) => file.replace('.part', '')),
    async touch(date: Date) {
      for (const file of await files()) await utimes(join(directory, file), date, date)
    },
  }
}

async function useBucket() {
  const { options, keys, touch } = await useS3()
  return { storage: new S3Storage(options), keys, touch }
}

describe.each([
  ['a directory', useDirectory],
  ['S3', useBucket],
])('uploads in %s', (_, useStorage) => {
  test.each([0, 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])(
    'of %i bytes are found again, byte for byte',
    async (size) => {
      const { storage, keys } = await useStorage()
      const [key, content] = [randomUUID(), randomBytes(size)]
      const body = (async function* () {
        for (let start = 0; start < size; start += 300_001)
          yield content.subarray(start, start + 300_001)
      })()
      expect(await storage.save(key, body)).toBe(size)
      expect(await keys()).toEqual([key])
      const file = await storage.locate(key, await useFolder(), NEVER)
      expect(content.equals(await readFile(file))).toBe(true)
    },
  )

  test.each([0, 1, 9 * MIB])('that end in an error after %i bytes leave nothing', async (size) => {
    const { storage, keys } = await useStorage()
    const body = (async function* () {
      yield* chunksOf(size)
      throw new Error('Upload aborted')
    })()
    await expect(storage.save(randomUUID(), body)).rejects.toThrow('Upload aborted')
    expect(await keys()).toEqual([])
  })

  test('that are removed are gone, also if they were before', async () => {
    const { storage, keys } = await useStorage()
    const key = randomUUID()
    await storage.save(key, chunksOf(1))
    await storage.remove(key)
    await storage.remove(key)
    expect(await keys()).toEqual([])
    await expect(storage.locate(key, await useFolder(), NEVER)).rejects.toMatchObject({
      code: 'not_found',
      retryable: false,
    })
  })

  test('that are old are listed, complete or not, under names by which they can be removed', async () => {
    const { storage, keys, touch } = await useStorage()
    const [complete, stalled, fresh] = [randomUUID(), randomUUID(), randomUUID()]
    expect(await storage.listUntouched(HOUR_MS, NEVER)).toEqual([])
    await storage.save(complete, chunksOf(1))
    const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>()
    const { promise: left, reject: leave } = Promise.withResolvers<void>()
    const saving = storage.save(
      stalled,
      (async function* () {
        yield* chunksOf(9 * MIB)
        arrive()
        await left
      })(),
    )
    onTestFinished(async () => {
      leave(new Error('Upload aborted'))
      await expect(saving).rejects.toThrow('Upload aborted')
    })
    await arrived
    await touch(new Date(Date.now() - 26 * HOUR_MS))
    await storage.save(fresh, chunksOf(1))
    const old = await storage.listUntouched(HOUR_MS, NEVER)
    expect(old.map((name) => name.slice(0, complete.length)).toSorted()).toEqual(
      [complete, stalled].toSorted(),
    )
    for (const name of [...old, ...old]) await storage.remove(name)
    expect(await keys()).toEqual([fresh])
  })
})

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
