import { hash } from 'node:crypto'

/** A strong ETag for a resource that counts its versions. */
export const versionTag = (version: number) => `"${version}"`

/** A strong ETag for a body that has no version of its own. */
export const bodyTag = (body: string | Uint8Array) => `"${hash('sha1', body, 'base64url')}"`

/** Whether `If-Match` lets a change pass: absent, `*`, or one of its tags is the current one (RFC 9110, 13.1.1). */
export const allowsChange = (ifMatch: string | undefined, tag: string) =>
  ifMatch === undefined || ifMatch.trim() === '*' || tagsOf(ifMatch).includes(tag)

/** Whether `If-None-Match` says that the client has this version already (RFC 9110, 13.1.2: weak comparison). */
export const isFresh = (ifNoneMatch: string | undefined, tag: string) =>
  ifNoneMatch !== undefined &&
  (ifNoneMatch.trim() === '*' || tagsOf(ifNoneMatch).some((other) => other.replace(/^W\//, '') === tag))

const tagsOf = (header: string): string[] => header.match(/(?:W\/)?"[^"]*"/g) ?? []
