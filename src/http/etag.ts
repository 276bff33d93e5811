import { hash } from 'node:crypto'
import { z } from '@hono/zod-openapi'
import type { TypedResponse } from 'hono'
import type { JSONParsed } from 'hono/utils/types'
import { AppError } from '../errors.ts'
import type { AppContext } from './context.ts'

export const IfMatch = z.object({
  'if-match': z.string().optional().openapi({ description: '`ETag` of the version to change' }),
})

export const notModified = {
  304: {
    description: 'The client has this version: see `If-None-Match`',
    headers: z.object({ ETag: z.string() }),
  },
}

/** @throws AppError `precondition_failed` unless the client has seen this version. */
export type CheckVersion = (version: number) => void

export const versionTag = (version: number) => `"${version}"`

export const bodyTag = (body: string | Uint8Array) => `"${hash('sha1', body, 'base64url')}"`

/** Whether `If-Match` permits a change (RFC 9110, 13.1.1). */
export const allowsChange = (ifMatch: string | undefined, tag: string) =>
  ifMatch === undefined || ifMatch.trim() === '*' || parseTags(ifMatch).includes(tag)

/** Whether `If-None-Match` names this version, by weak comparison (RFC 9110, 13.1.2). */
export const isFresh = (ifNoneMatch: string | undefined, tag: string) =>
  ifNoneMatch !== undefined &&
  (ifNoneMatch.trim() === '*' ||
    parseTags(ifNoneMatch).some((other) => other.replace(/^W\//, '') === tag))

/** Checks `If-Match` against the locked version. */
export function checkIfMatch(c: AppContext): CheckVersion {
  const ifMatch = c.req.header('if-match')
  return (version) => {
    if (!allowsChange(ifMatch, versionTag(version)))
      throw new AppError('precondition_failed', `It is at version ${version} now: read it again`)
  }
}

/**
 * Answers with JSON, or 304 if the client has this version.
 *
 * @param tag `versionTag(value.version)`; by default a hash of the body.
 */
export function answerTagged<Value>(c: AppContext, value: Value, tag?: string) {
  const body = JSON.stringify(value)
  const etag = tag ?? bodyTag(body)
  const headers = { 'Content-Type': 'application/json', 'Cache-Control': 'no-cache', ETag: etag }
  return isFresh(c.req.header('if-none-match'), etag)
    ? (new Response(null, { status: 304, headers }) as NotModified)
    : (new Response(body, { headers }) as JsonResponse<Value, 200>)
}

export const answerChanged = <Value extends { version: number }, Status extends 200 | 201>(
  value: Value,
  status: Status,
  headers: Record<string, string> = {},
) =>
  new Response(JSON.stringify(value), {
    status,
    headers: { 'Content-Type': 'application/json', ETag: versionTag(value.version), ...headers },
  }) as JsonResponse<Value, Status>

// `c.json` and `c.body` return these types, but are slow with headers (docs/decisions/003).
type JsonResponse<Value, Status extends 200 | 201> = Response &
  TypedResponse<JSONParsed<Value>, Status, 'json'>
type NotModified = Response & TypedResponse<null, 304, 'body'>

const parseTags = (header: string): string[] => header.match(/(?:W\/)?"[^"]*"/g) ?? []
