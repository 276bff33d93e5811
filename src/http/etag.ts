import { hash } from 'node:crypto'
import { z } from '@hono/zod-openapi'
import type { TypedResponse } from 'hono'
import type { AppContext } from './context.ts'

/**
 * The header of a change that builds on a version: a route with it declares `request: { headers:
 * IfMatch }`.
 */
export const IfMatch = z.object({
  'if-match': z
    .string()
    .optional()
    .openapi({ description: 'The `ETag` that the change builds on' }),
})

/** What a route that answers by `answerTagged` declares besides its 200. */
export const notModified = {
  304: {
    description: 'The client has this version: see `If-None-Match`',
    headers: z.object({ ETag: z.string() }),
  },
}

/** Whether the caller who wants a change has seen this version. */
export type IsCurrent = (version: number) => boolean

/** A strong ETag for a resource that counts its versions. */
export const versionTag = (version: number) => `"${version}"`

/** A strong ETag for a body that has no version of its own. */
export const bodyTag = (body: string | Uint8Array) => `"${hash('sha1', body, 'base64url')}"`

/**
 * Whether `If-Match` lets a change pass: absent, `*`, or one of its tags is the current one (RFC
 * 9110, 13.1.1).
 */
export const allowsChange = (ifMatch: string | undefined, tag: string) =>
  ifMatch === undefined || ifMatch.trim() === '*' || tagsOf(ifMatch).includes(tag)

/**
 * Whether `If-None-Match` says that the client has this version already (RFC 9110, 13.1.2: weak
 * comparison).
 */
export const isFresh = (ifNoneMatch: string | undefined, tag: string) =>
  ifNoneMatch !== undefined &&
  (ifNoneMatch.trim() === '*' ||
    tagsOf(ifNoneMatch).some((other) => other.replace(/^W\//, '') === tag))

/** What the request's `If-Match` says: give it to the story that makes the change. */
export function isCurrentFor(c: AppContext): IsCurrent {
  const ifMatch = c.req.header('if-match')
  return (version) => allowsChange(ifMatch, versionTag(version))
}

// Plain responses, here and below: Hono's `c.json()` with headers takes as long as building an
// insert does.

/**
 * Answers a read with JSON, or with 304 and no body a client that has this version already.
 *
 * @param tag `versionTag(value.version)`; without it, a tag is made from the whole body.
 */
export function answerTagged<Value>(
  c: AppContext,
  value: Value,
  tag?: string,
): TypedResponse<Value, 200, 'json'> {
  const body = JSON.stringify(value)
  const etag = tag ?? bodyTag(body)
  const headers = { 'Content-Type': 'application/json', 'Cache-Control': 'no-cache', ETag: etag }
  const isKnown = isFresh(c.req.header('if-none-match'), etag)
  return (
    isKnown ? new Response(null, { status: 304, headers }) : new Response(body, { headers })
  ) as never
}

/**
 * Answers a change with what has become of the resource, and its version as the ETag.
 *
 * @param headers what else the answer says, such as `Location`.
 */
export const answerChanged = <Value extends { version: number }, Status extends 200 | 201>(
  value: Value,
  status: Status,
  headers: Record<string, string> = {},
): TypedResponse<Value, Status, 'json'> =>
  new Response(JSON.stringify(value), {
    status,
    headers: { 'Content-Type': 'application/json', ETag: versionTag(value.version), ...headers },
  }) as never

const tagsOf = (header: string): string[] => header.match(/(?:W\/)?"[^"]*"/g) ?? []
