import { ERROR_CODES } from '../errors.ts'
import type { Event } from '../realtime/event.ts'
import { eventGuide } from './event-guide.ts'
import type { Router } from './router.ts'

/** What `problemOf` writes, as JSON Schema. */
const Problem = {
  type: 'object',
  required: ['type', 'title', 'status', 'detail', 'instance', 'code'],
  additionalProperties: false,
  properties: {
    type: { type: 'string' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    instance: { type: 'string', description: 'The path that was asked for' },
    code: { type: 'string', enum: ERROR_CODES },
    requestId: { type: 'string' },
    errors: {
      type: 'array',
      description: 'With `invalid`: each part of the input that is wrong',
      items: {
        type: 'object',
        required: ['path', 'message'],
        additionalProperties: false,
        properties: { path: { type: 'string' }, message: { type: 'string' } },
      },
    },
  },
}

const PROBLEM_CONTENT = {
  'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
}

const header = (description: string, required = true) => ({
  description,
  required,
  schema: { type: 'string' },
})
const REQUEST_ID = {
  'X-Request-Id': header(
    'Names the request in logs, jobs and traces; that of the request, if it had one',
  ),
}
const RETRY_AFTER = { 'Retry-After': header('Seconds after which to try again', false) }

/** Relative to where this document is read from: right on every port, and behind a proxy. */
const SERVERS = [{ url: '/' }]

const DESCRIPTION =
  'An async backend whose event loop stays free. Every error is `application/problem+json` (RFC 9457).'

type Document = ReturnType<Router['getOpenAPI31Document']>
type PathItem = NonNullable<Document['paths']>[string]
type Operation = NonNullable<PathItem['get']>
type Responses = Record<string, { description: string; content?: object; headers?: object }>

/**
 * The routes declare what is theirs; what follows from the form of a route, and what every answer
 * has, is added here.
 */
export function describeApi(app: Router, events: readonly Event[]) {
  const info = {
    title: 'offloop',
    version: 'v1',
    description: `${DESCRIPTION}\n\n${eventGuide(events)}`,
  }
  const {
    paths = {},
    components,
    ...document
  } = app.getOpenAPI31Document({ openapi: '3.1.0', info, servers: SERVERS })
  for (const [path, { get, post, put, patch, delete: remove }] of Object.entries(paths))
    for (const operation of [get, post, put, patch, remove])
      if (operation) complete(path, operation)
  return {
    ...document,
    paths,
    components: { ...components, schemas: { ...components?.schemas, Problem } },
  }
}

function complete(path: string, operation: Operation) {
  const responses: Responses = {
    ...impliedBy(path, operation),
    ...(operation.responses as Responses),
  }
  responses['default'] = { description: 'Any other error' }
  for (const [status, response] of Object.entries(responses)) {
    const isProblem = status === 'default' || Number(status) >= 400
    if (isProblem) response.content ??= PROBLEM_CONTENT
    response.headers = { ...REQUEST_ID, ...(status === '503' && RETRY_AFTER), ...response.headers }
  }
  operation.responses = responses as NonNullable<Operation['responses']>
}

/** The problems that an operation may answer with because of what it takes. */
function impliedBy(path: string, { parameters = [], requestBody }: Operation): Responses {
  const names = parameters.map((parameter) => ('name' in parameter ? parameter.name : ''))
  return {
    ...(requestBody && {
      400: { description: 'The body is malformed' },
      413: { description: 'The body is too large' },
      415: { description: 'The body is of another media type, or compressed' },
    }),
    ...(path.includes('{') && { 404: { description: 'There is none with this id' } }),
    ...(names.includes('if-match') && {
      412: { description: 'It has another version by now than `If-Match` says' },
    }),
    ...((requestBody || names.length > 0) && {
      422: { description: 'The input is invalid: `errors` says where and why' },
    }),
    ...(path.startsWith('/v1/') && {
      503: { description: 'The service is overloaded, stops, or lacks its database' },
      504: { description: 'It took longer than a request may' },
    }),
  }
}
