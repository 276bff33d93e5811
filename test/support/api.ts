import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { afterAll, beforeAll, expect } from 'vitest'
import { AS_OPERATOR } from './operator.ts'
import { startService } from './service.ts'

/** An operation of the OpenAPI document, as far as tests look at it. */
export interface Operation {
  operationId: string
  method: string
  path: string
  security: object[]
  parameters: Parameter[]
  /** The media type of its body, and its schema. */
  body: { type: string; schema: Schema } | undefined
  responses: Record<
    string,
    {
      content?: Record<string, object>
      headers?: Record<string, { required?: boolean; schema: Schema }>
    }
  >
}

export interface Parameter {
  name: string
  in: 'path' | 'query' | 'header'
  required?: boolean
  schema: Schema
}

export interface Schema {
  type?: string | string[]
  format?: string
  enum?: unknown[]
  minimum?: number
  maximum?: number
  maxLength?: number
  required?: string[]
  properties?: Record<string, Schema>
  items?: Schema
  $ref?: string
}

interface Document {
  paths: Record<string, Record<string, Record<string, unknown>>>
  components: { schemas: Record<string, Schema> }
}

/** An answer, as a client got it. */
export interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  /** Absent for a body that is not looked at. */
  text: string | undefined
}

/** The service's own description of its API, which its answers are checked against. */
export async function readApi(url: string) {
  const document = (await (await fetch(`${url}/openapi.json`)).json()) as Document
  const ajv = new Ajv2020({ strict: false, allErrors: true })
  addFormats.default(ajv)
  ajv.addSchema(document, 'api')
  const problem = ajv.getSchema('api#/components/schemas/Problem')
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => toOperation(path, method, operation)),
  )

  /** What an answer has that the document does not say; empty when it fits. */
  function misfits(
    { path, method, responses }: Operation,
    { status, headers, text }: Answer,
  ): string[] {
    const response = responses[status]
    if (!response) return [`the status ${status} is not declared: ${text?.slice(0, 300)}`]
    const missing = Object.entries(response.headers ?? {}).filter(
      ([name, { required }]) => required !== false && !headers[name.toLowerCase()],
    )
    const found = missing.map(([name]) => `the header ${name} is missing`)
    const type = String(headers['content-type'] ?? '').split(';')[0] ?? ''
    if (!response.content) return text ? [...found, `a body of ${type} is not declared`] : found
    if (!(type in response.content)) return [...found, `the type ${type} is not declared`]
    if (text === undefined || !type.endsWith('json')) return found
    const place = ['paths', path, method, 'responses', String(status), 'content', type, 'schema']
    const validate = ajv.getSchema(`api#/${place.map(toPointer).join('/')}`)
    if (!validate) return [...found, 'there is no schema']
    return validate(JSON.parse(text))
      ? found
      : [...found, `${ajv.errorsText(validate.errors)}: ${text.slice(0, 300)}`]
  }

  return {
    document,
    operations,
    misfits,
    isProblem: (text: string) => problem?.(JSON.parse(text)) === true,
  }
}

interface Request {
  id?: string
  query?: string
  body?: unknown
  headers?: Record<string, string>
}

/**
 * A service for the tests of a file, whose operations an operator calls by name and whose answers must
 * fit its document.
 */
export function serveApi(open?: Parameters<typeof startService>[1]) {
  let service: Awaited<ReturnType<typeof startService>>
  let api: Awaited<ReturnType<typeof readApi>>
  beforeAll(async () => {
    service = await startService({}, open)
    api = await readApi(service.url)
  })
  afterAll(() => service.close())

  const find = (name: string) =>
    api.operations.find(({ operationId }) => operationId === name) as Operation
  return {
    document: () => api.document,
    operations: () => api.operations,
    /** The statuses that the document has for an operation, but the 500 that all have. */
    statusesOf: (name: string) =>
      Object.keys(find(name).responses).filter((status) => status !== '500'),
    /** The defaults of an operation's parameters. */
    defaultsOf: (name: string) =>
      Object.fromEntries(
        find(name).parameters.flatMap(({ name, schema }) =>
          'default' in schema ? [[name, schema.default]] : [],
        ),
      ),
    /** Sends a request, and expects the answer to fit. */
    async send(
      name: string,
      { id = '', query = '', body, headers = {} }: Request = {},
    ): Promise<Answer> {
      const operation = find(name)
      const response = await fetch(`${service.url}${operation.path.replace('{id}', id)}?${query}`, {
        method: operation.method.toUpperCase(),
        headers: { 'content-type': 'application/json', ...AS_OPERATOR, ...headers },
        ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      })
      const answer = {
        status: response.status,
        headers: Object.fromEntries(response.headers),
        text: await response.text(),
      }
      expect([name, api.misfits(operation, answer)]).toEqual([name, []])
      return answer
    },
  }
}

const toPointer = (key: string) =>
  encodeURIComponent(key.replaceAll('~', '~0').replaceAll('/', '~1'))

function toOperation(path: string, method: string, operation: Record<string, unknown>): Operation {
  const {
    operationId,
    security,
    parameters = [],
    requestBody,
    responses,
  } = operation as unknown as Operation & {
    requestBody?: { content: Record<string, { schema: Schema }> }
  }
  const [[type, { schema }] = ['', { schema: {} }]] = Object.entries(requestBody?.content ?? {})
  const body = requestBody && { type, schema }
  return { operationId, method, path, security, parameters, body, responses }
}
