import crypto from 'node:crypto'
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
// @ts-expect-error It has no types.
import S3rver from '@20minutes/s3rver'
import { onTestFinished, vi } from 'vitest'
import { findFreePort } from '../../scripts/database/private-server.ts'

const BUCKET = 'bucket'
const FOLDER = 'some/uploads'
const SUFFIX = '._S3rver_object'

/** Returns true if it takes care of the response. */
type Fault = (request: IncomingMessage, response: ServerResponse) => boolean

/** An S3-compatible server of the test's own, which it may stop, start and disturb. */
export async function useS3() {
  const directory = await mkdtemp(join(tmpdir(), 'offloop-s3-'))
  const s3 = new S3rver({ directory, silent: true, configureBuckets: [{ name: BUCKET }] })
  await s3.configureBuckets()
  s3.on('error', () => {})
  // OpenSSL 3 has no DES, of which s3rver makes the tokens of its pages. Nobody here reads them.
  const cipher = { update: () => Buffer.alloc(0), final: () => Buffer.alloc(0) }
  vi.spyOn(crypto, 'createCipheriv').mockReturnValue(cipher as never)
  const incomplete = join(directory, BUCKET, '._S3rver_uploads')
  const requests: { method: string; url: string; bytes: number }[] = []
  let fault: Fault = () => false
  const server = await useRestartable((request, response) => {
    const { method = '', url = '', headers } = request
    requests.push({ method, url, bytes: Number(headers['content-length'] ?? 0) })
    if (!fault(request, response) && !answerForIncomplete(incomplete, request, response))
      s3.callback()(request, response)
  })
  const endpoint = await server.start()
  onTestFinished(async () => {
    await server.stop()
    await rm(directory, { recursive: true })
  })
  const list = async () => {
    const files = await readdir(directory, { recursive: true })
    return {
      complete: files.filter((file) => file.endsWith(SUFFIX)),
      incomplete: files.filter((file) => basename(file) === 'key'),
    }
  }
  return {
    options: {
      endpoint,
      region: 'us-east-1',
      bucket: BUCKET,
      folder: FOLDER,
      accessKeyId: 'S3RVER',
      secretAccessKey: 'S3RVER',
    },
    /** The settings of a service that uses it. */
    env: {
      REPORT_STORAGE: `s3://${BUCKET}/${FOLDER}`,
      AWS_ENDPOINT_URL: endpoint,
      AWS_ACCESS_KEY_ID: 'S3RVER',
      AWS_SECRET_ACCESS_KEY: 'S3RVER',
    },
    requests,
    stop: server.stop,
    start: server.start,
    disturb(next: Fault) {
      fault = next
    },
    /** Stores empty objects, faster than one request after the other. */
    async fill(names: readonly string[]) {
      const folder = join(directory, BUCKET, FOLDER)
      await mkdir(join(folder, 'other'), { recursive: true })
      for (const name of names) await writeFile(join(folder, `${name}${SUFFIX}`), '')
    },
    /** The keys of what it holds, complete or not. */
    async keys() {
      const { complete, incomplete } = await list()
      const keys = incomplete.map((file) => readFile(join(directory, file), 'utf8'))
      const names = complete.map((file) => file.slice(`${BUCKET}/`.length, -SUFFIX.length))
      return [...names, ...(await Promise.all(keys))]
        .map((key) => key.replace(`${FOLDER}/`, ''))
        .sort()
    },
    /** Dates everything that it holds. */
    async touch(date: Date) {
      const { complete, incomplete } = await list()
      for (const file of [...complete, ...incomplete])
        await utimes(join(directory, file), date, date)
    },
  }
}

/** On the same port each time. */
async function useRestartable(
  handle: (request: IncomingMessage, response: ServerResponse) => void,
) {
  let server: Server
  const port = await findFreePort()
  return {
    async start() {
      server = createServer(handle).listen(port, '127.0.0.1')
      await new Promise((resolve) => server.once('listening', resolve))
      return `http://127.0.0.1:${port}`
    },
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

/** What s3rver lacks: the list of incomplete uploads, and their removal. */
function answerForIncomplete(
  directory: string,
  { method, url = '' }: IncomingMessage,
  response: ServerResponse,
): boolean {
  const { searchParams } = new URL(url, 'http://localhost')
  const id = searchParams.get('uploadId')
  if (method === 'DELETE' && id !== null) {
    const isThere = existsSync(join(directory, id))
    rmSync(join(directory, id), { recursive: true, force: true })
    response.writeHead(isThere ? 204 : 404).end()
    return true
  }
  if (method !== 'GET' || !searchParams.has('uploads')) return false
  void readdir(directory).then(
    (ids) => response.end(ids.map((found) => toUpload(directory, found)).join('')),
    () => response.end(''),
  )
  return true
}

function toUpload(directory: string, id: string): string {
  const file = join(directory, id, 'key')
  const initiated = statSync(file).mtime.toISOString()
  return `<Upload><Key>${readFileSync(file)}</Key><UploadId>${id}</UploadId><Initiated>${initiated}</Initiated></Upload>`
}
