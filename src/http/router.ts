import { OpenAPIHono } from '@hono/zod-openapi'
import type { ZodError, z } from 'zod'
import { AppError, type Issue } from '../errors.ts'
import type { Env } from './env.ts'

/** What clients call the parts of a request that Hono validates. */
const PARTS: Record<string, string> = { json: 'body', param: 'path', query: 'query', header: 'headers' }

/**
 * A router whose routes validate what they declare, and stand in the OpenAPI document.
 * Input that does not fit becomes a 422 that names every path.
 */
export const createRouter = () =>
  new OpenAPIHono<Env>({
    defaultHook(result) {
      if (result.success) return
      const errors = toIssues(PARTS[result.target] ?? result.target, result.error)
      throw new AppError('invalid', `The request does not fit: ${errors.map(({ path }) => path).join(', ')}`, { errors })
    },
  })

/** What a route answers with, as its OpenAPI document says it. */
export const json = <Schema extends z.ZodType>(schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
})

const toIssues = (part: string, { issues }: ZodError): Issue[] =>
  issues.flatMap((issue) =>
    keysOf(issue).map((key) => ({ path: [part, ...issue.path, ...key].join('.'), message: messageOf(issue) })),
  )

/** An object's unknown keys come as one issue of the object: each of them gets a path of its own. */
const keysOf = (issue: z.core.$ZodIssue): string[][] =>
  issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [key]) : [[]]

const messageOf = (issue: z.core.$ZodIssue) => (issue.code === 'unrecognized_keys' ? 'Unknown key' : issue.message)
