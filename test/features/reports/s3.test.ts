import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { S3Storage } from '../../../src/features/reports/s3.ts'
import { useDatabase } from '../../support/database.ts'
import { RECORD_LOADS, useProcess } from '../../support/process.ts'
import { accept, post, untilFinished } from '../../support/reports.ts'
import { useS3 } from '../../support/s3-server.ts'
import { request, useService } from '../../support/service.ts'
import { useSmallDisk } from '../../support/small-disk.ts'

const MIB = 1024 ** 2
const NEVER = new AbortController().signal
const UNAVAILABLE = expect.objectContaining({ code: 'unavailable', status: 503 })

async function useStorage() {
  const s3 = await useS3()
  const folder = await mkdtemp(join(tmpdir(), 'offloop-download-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  return { s3, storage: new S3Storage(s3.options), folder, key: randomUUID() }
}

async function* bodyOf(content: Uint8Array, onChunk: (index: number) => unknown = () => {}) {
  for (let start = 0, index = 0; start < content.byteLength; start += MIB, index++) {
    await onChunk(index)
    yield content.subarray(start, start + MIB)
  }
}

describe('an upload', () => {
  test('is sent in parts that S3 takes', async () => {
    const { s3, storage, key } = await useStorage()
    await storage.save(key, bodyOf(randomBytes(20 * MIB)))
    const sent = s3.requests.filter(({ method }) => method === 'PUT').map(({ bytes }) => bytes)
    expect(sent).toEqual([8 * MIB, 8 * MIB, 4 * MIB])
  })

  test.each([
    [
      'the store is away for a moment',
      async (s3: S3) => {
        await s3.stop()
        void sleep(100).then(s3.start)
      },
    ],
    [
      'the store asks for fewer requests',
      (s3: S3) =>
        s3.disturb((_, response) => {
          s3.disturb(() => false)
          response.writeHead(503).end('<Error><Code>SlowDown</Code></Error>')
          return true
        }),
    ],
    [
      'a connection breaks in the middle of a part',
      (s3: S3) =>
        s3.disturb((request) => {
          s3.disturb(() => false)
          request.once('data', () => request.destroy())
          return true
        }),
    ],
  ])('goes on if %s', async (_, disturb) => {
    const { s3, storage, folder, key } = await useStorage()
    const content = randomBytes(20 * MIB)
    await storage.save(
      key,
      bodyOf(content, (index) => index === 12 && disturb(s3)),
    )
    expect(content.equals(await readFile(await storage.locate(key, folder, NEVER)))).toBe(true)
  })

  test('is complete although the reply to that was lost', async () => {
    const { s3, storage, key } = await useStorage()
    s3.disturb(({ method, url }, response) => {
      if (method === 'POST' && url?.includes('uploadId'))
        vi.spyOn(response, 'end').mockImplementation(() => response.destroy())
      return false
    })
    expect(await storage.save(key, bodyOf(randomBytes(9 * MIB)))).toBe(9 * MIB)
    expect(await s3.keys()).toEqual([key])
  })

  test.each([
    [507, 'XMinioStorageFull', 'storage_full'],
    [403, 'QuotaExceeded', 'storage_full'],
    [403, 'AccessDenied', 'unavailable'],
  ])('is refused at once if the store answers %i %s', async (status, code, expected) => {
    const { s3, storage, key } = await useStorage()
    s3.disturb(({ method }, response) => {
      if (method === 'PUT') response.writeHead(status).end(`<Error><Code>${code}</Code></Error>`)
      return method === 'PUT'
    })
    await expect(storage.save(key, bodyOf(randomBytes(1)))).rejects.toMatchObject({
      code: expected,
      cause: { message: `PUT got ${status} ${code}` },
    })
    expect(s3.requests.map(({ method }) => method)).toEqual(['PUT', 'DELETE'])
  })

  test('is refused if the store is gone, and what has arrived is removed later', async () => {
    const { s3, storage, key } = await useStorage()
    const body = bodyOf(randomBytes(20 * MIB), (index) => index === 12 && s3.stop())
    await expect(storage.save(key, body)).rejects.toEqual(UNAVAILABLE)
    await s3.start()
    expect(await s3.keys()).toEqual([key])
    await s3.touch(new Date(0))
    for (const name of await storage.listUntouched(0, NEVER)) await storage.remove(name)
    expect(await s3.keys()).toEqual([])
  })

  test('is refused if the store cannot put its parts together, and leaves nothing', async () => {
    const { s3, storage, key } = await useStorage()
    s3.disturb(({ method, url }, response) => {
      const completes = method === 'POST' && url?.includes('uploadId') === true
      if (completes) response.end('<Error><Code>InternalError</Code></Error>')
      return completes
    })
    await expect(storage.save(key, bodyOf(randomBytes(9 * MIB)))).rejects.toEqual(UNAVAILABLE)
    expect(await s3.keys()).toEqual([])
  })

  test('waits while 32 others arrive, but not for long', async () => {
    const { storage } = await useStorage()
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const saving = Array.from({ length: 32 }, () =>
      storage.save(
        randomUUID(),
        bodyOf(randomBytes(1), () => ended),
      ),
    )
    const save = () => storage.save(randomUUID(), bodyOf(randomBytes(1)))
    await expect(save()).rejects.toMatchObject({ code: 'overloaded' })
    const waiting = save()
    end()
    expect(await waiting).toBe(1)
    await Promise.all(saving)
  })
})

describe('a download', () => {
  const content = randomBytes(20 * MIB)

  test('goes on where its connection broke', async () => {
    const { s3, storage, folder, key } = await useStorage()
    await storage.save(key, bodyOf(content))
    const isBroken = truncate(s3, 3)
    expect(content.equals(await readFile(await storage.locate(key, folder, NEVER)))).toBe(true)
    expect(isBroken()).toBe(true)
    const gets = s3.requests.filter(({ method }) => method === 'GET')
    expect(gets).toHaveLength(3 + 3)
  })

  test('that breaks each time fails', async () => {
    const { s3, storage, folder, key } = await useStorage()
    await storage.save(key, bodyOf(content))
    truncate(s3, Number.POSITIVE_INFINITY)
    await expect(storage.locate(key, folder, NEVER)).rejects.toEqual(UNAVAILABLE)
  })

  test('of fewer bytes than the upload has fails', async () => {
    const { s3, storage, folder, key } = await useStorage()
    await storage.save(key, bodyOf(content))
    s3.disturb(({ method }, response) => {
      if (method === 'GET') response.writeHead(206).end('short')
      return method === 'GET'
    })
    await expect(storage.locate(key, folder, NEVER)).rejects.toMatchObject({
      code: 'unavailable',
      cause: { message: `S3 sent 5 of ${8 * MIB} bytes` },
    })
  })

  test('ends with its signal, also while the store is silent', async () => {
    const { s3, storage, folder, key } = await useStorage()
    await storage.save(key, bodyOf(content))
    const cancelling = new AbortController()
    s3.disturb(({ method }) => {
      if (method === 'GET') cancelling.abort(new Error('The job was cancelled'))
      return method === 'GET'
    })
    const download = storage.locate(key, folder, cancelling.signal)
    await expect(download).rejects.toThrow('The job was cancelled')
  })

  test('from a store that stays silent fails', async () => {
    const { s3, storage, folder, key } = await useStorage()
    await storage.save(key, bodyOf(content))
    s3.disturb(({ method }) => method === 'GET')
    hasten()
    await expect(storage.locate(key, folder, NEVER)).rejects.toMatchObject({
      code: 'unavailable',
      cause: { message: 'GET got no answer: nothing within 20000 ms' },
    })
  })

  test.skipIf(!useSmallDisk.isPossible)('that does not fit on the disk is refused', async () => {
    const { s3, storage, key } = await useStorage()
    await storage.save(key, bodyOf(content))
    const disk = await useSmallDisk('1m')
    await expect(storage.locate(key, disk, NEVER)).rejects.toMatchObject({ code: 'storage_full' })
    expect(s3.requests.filter(({ method }) => method === 'GET')).toEqual([])
  })
})

test('a removal ends with its signal, also while it waits to be repeated', async () => {
  const { s3, storage, key } = await useStorage()
  const deadline = new AbortController()
  s3.disturb((_, response) => {
    response.writeHead(503).end()
    setTimeout(() => deadline.abort(new Error('Too late')), 20)
    return true
  })
  await expect(storage.remove(key, deadline.signal)).rejects.toThrow('Too late')
})

test('any number of uploads is listed, and nothing that somebody else has stored', async () => {
  const { s3, storage } = await useStorage()
  const keys = Array.from({ length: 1_100 }, () => randomUUID())
  await s3.fill([...keys, 'notes', `other/${randomUUID()}`])
  await s3.touch(new Date(0))
  expect(await storage.listUntouched(0, NEVER)).toEqual(keys.toSorted())
})

describe('a service', () => {
  test.each([
    [{ AWS_ACCESS_KEY_ID: 'wrong' }, 'GET got 403 InvalidAccessKeyId'],
    [{ AWS_SECRET_ACCESS_KEY: 'wrong' }, 'GET got 403 SignatureDoesNotMatch'],
    [{ REPORT_STORAGE: 's3://absent/uploads' }, 'GET got 404 NoSuchBucket'],
  ])('with %o does not start, and says why', async (env, reason) => {
    const { url: DATABASE_URL } = await useDatabase()
    const s3 = await useS3()
    const { exitCode, output } = useProcess('src/main.ts', { DATABASE_URL, ...s3.env, ...env })
    expect(await exitCode).toBe(1)
    expect(output()).toContain('Bad configuration:\n  REPORT_STORAGE: ')
    expect(output()).toContain(reason)
  })

  test('starts without its store, refuses uploads, and takes them once it is there', async () => {
    const s3 = await useS3()
    await s3.stop()
    const { url } = await useService(s3.env)
    expect(await post(url, 'a\n1\n')).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    await s3.start()
    const { id } = await accept(url, 'a\n1\n')
    expect(await untilFinished(url, id)).toMatchObject({ state: 'succeeded', error: null })
    await s3.stop()
    const cancel = async () => (await request(`${url}/v1/reports/${id}`, 'DELETE')).status
    expect([await cancel(), await cancel()]).toEqual([503, 202])
  })
})

test('a store that stays silent does not keep a service from starting', async () => {
  const { s3, storage } = await useStorage()
  s3.disturb(() => true)
  hasten()
  await expect(storage.check()).rejects.toEqual(UNAVAILABLE)
})

test('only a service with a store loads its client', async () => {
  const { url: DATABASE_URL } = await useDatabase()
  const s3 = await useS3()
  const outputWith = async (env: NodeJS.ProcessEnv) => {
    const { url, output } = useProcess(
      'src/main.ts',
      { DATABASE_URL, LOG_LEVEL: 'info', ...env },
      RECORD_LOADS,
    )
    await url()
    return output()
  }
  expect(await outputWith({})).not.toContain('/aws4fetch/')
  expect(await outputWith(s3.env)).toContain('/aws4fetch/')
})

/** Makes time limits a hundred times as short. */
function hasten() {
  const timeout = AbortSignal.timeout.bind(AbortSignal)
  const spy = vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => timeout(ms / 100))
  onTestFinished(() => spy.mockRestore())
}

/** Breaks the connections of that many downloads in the middle. */
function truncate(s3: S3, times: number) {
  let left = times
  s3.disturb(({ method }, response) => {
    if (method !== 'GET' || left-- <= 0) return false
    const write = response.write.bind(response)
    vi.spyOn(response, 'write').mockImplementation((chunk: Uint8Array) => {
      write(chunk.subarray(0, 1_000))
      response.destroy()
      return false
    })
    return false
  })
  return () => left < 0
}

type S3 = Awaited<ReturnType<typeof useS3>>
