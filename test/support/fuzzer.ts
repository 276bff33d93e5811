import type { Operation, Parameter, Schema } from './api.ts'

/** A request as it goes out. */
export interface FuzzedRequest {
  operation: Operation
  /** Whose credentials go with it, unless `headers` has some that are broken. */
  caller: Caller
  method: string
  path: string
  headers: Record<string, string>
  body: string | Buffer | undefined
}

export type Caller = 'anonymous' | 'member' | 'operator'

/** Of all accounts that the made-up requests know. */
export const PASSWORD = 'correct horse battery staple'

export const MEMBER = 'member@example.com'

/** What nobody should send, and somebody will. */
const ODDITIES = [
  '',
  ' ',
  '0',
  '-1',
  '1.5',
  '1e3',
  '0x10',
  '١٢',
  'NaN',
  'Infinity',
  'null',
  'true',
  '[]',
  '{}',
  '__proto__',
  'constructor',
  '99999999999999999999',
  '4294967296',
  '-0',
  '+1',
  "' or 1=1 --",
  '%',
  '%00',
  '\u0000',
  '../../etc/passwd',
  '<script>',
  '🧨',
  'e\u0301',
  '\ud800',
  'x'.repeat(300),
  'ß',
  'İ',
  '\r\nX-Injected: 1',
  '00000000-0000-0000-0000-000000000000',
  '01981C5E-5F0A-7C4E-9A54-6B1D5B0D8A11',
]
const ODD_BODIES = [
  '',
  '{',
  'null',
  '[]',
  '7',
  '"text"',
  '{"__proto__":1}',
  '{"name":"\\ud800"}',
  '\ufeff{}',
  '[[[[[[[[[[]]]]]]]]]]',
  'a=b',
  '1e400',
]
const MEDIA_TYPES = [
  'text/plain',
  'application/xml',
  'application/x-www-form-urlencoded',
  'application/json; charset=utf-16',
  'text/csv',
  'x',
]
const TOKEN = 'A'.repeat(43)
const BROKEN_CREDENTIALS = [
  { authorization: '' },
  { authorization: 'Bearer' },
  { authorization: 'Bearer  ' },
  { authorization: `Bearer ofl_${TOKEN}` },
  { authorization: `bearer ofs_${TOKEN}` },
  { authorization: `Bearer ofl_${TOKEN}, Bearer ofl_${TOKEN}` },
  { authorization: 'Bearer __proto__' },
  { authorization: 'Basic b3BlcmF0b3I6b3BlcmF0b3I=' },
  { authorization: `Bearer ${'x'.repeat(5_000)}` },
  { cookie: 'session=' },
  { cookie: `session=ofs_${TOKEN}` },
  { cookie: `session=${TOKEN}; session=ofl_${TOKEN}` },
  { cookie: 'session=%00%ff; =; ;;' },
]
const CALLERS: Caller[] = ['anonymous', 'member', 'member', 'operator', 'operator', 'operator']
/** Hashing passwords takes most of the time: only so many of these operations are tried. */
const PASSWORD_SHARE = 0.3
/** Above these a request is slow, which is no more than an attempt at the bounds now and then. */
const SOON: Record<string, number> = {
  ms: 20,
  to: 20_000,
  from: 10_000,
  width: 32,
  height: 32,
  iterations: 50,
  seconds: 5,
}
const SAFE_HEADER = /^[\x20-\x7e]*$/

/**
 * Makes requests up from an OpenAPI document: most fit it, the others are wrong in one place or
 * several. The same seed makes the same requests, as long as the same ids are seen.
 */
export class Fuzzer {
  readonly #operations: Operation[]
  readonly #schemas: Record<string, Schema>
  readonly #ids = new Map<string, string[]>()
  #state: number

  constructor(seed: number, operations: Operation[], schemas: Record<string, Schema>) {
    this.#state = seed
    this.#operations = operations
    this.#schemas = schemas
  }

  /** Ids and cursors that answers hold are used in later requests. */
  observe({ path }: Operation, text: string): void {
    const collection = path.split('/{')[0] as string
    const found = this.#ids.get(collection) ?? []
    for (const [, id] of text.matchAll(/"(?:id|nextCursor)":"?([\w-]+)/g))
      if (id && id !== 'null') found.push(id)
    this.#ids.set(collection, found.slice(-50))
  }

  next(): FuzzedRequest {
    const operation = this.#operation()
    const isBroken = this.#chance(0.4)
    const path = operation.path.replace(/\{\w+\}/g, () => encode(this.#id(operation, isBroken)))
    // A list with many filters is mostly empty, and shows no id.
    const isPlain = this.#chance(0.2)
    const query = operation.parameters
      .filter((parameter) => parameter.in === 'query' && (parameter.required || !isPlain))
      .flatMap((parameter) => this.#query(parameter, isBroken))
    if (isBroken && this.#chance(0.1)) query.push(`${encode(this.#pick(ODDITIES))}=1`)
    const headers = this.#headers(operation, isBroken)
    const body = operation.body && this.#body(operation.body, headers, isBroken)
    const method =
      operation.method === 'get' && this.#chance(0.1) ? 'HEAD' : operation.method.toUpperCase()
    return {
      operation,
      caller: this.#pick(CALLERS),
      method,
      path: query.length > 0 ? `${path}?${query.join('&')}` : path,
      headers,
      body,
    }
  }

  #operation(): Operation {
    const operation = this.#pick(this.#operations)
    const takesPassword = /account|session|password/.test(operation.path) && operation.body
    return takesPassword && !this.#chance(PASSWORD_SHARE) ? this.#operation() : operation
  }

  #id({ path, parameters }: Operation, isBroken: boolean): string {
    const known = this.#ids.get(path.split('/{')[0] as string) ?? []
    if (isBroken && this.#chance(0.3))
      return this.#pick(ODDITIES.filter((text) => text !== '' && !text.includes('/')))
    if (known.length > 0 && this.#chance(0.8))
      return this.#chance(0.2) ? this.#pick(known).toUpperCase() : this.#pick(known)
    const schema = parameters.find((parameter) => parameter.in === 'path')?.schema ?? {}
    return schema.type === 'integer' ? String(this.#integer(1, 10_000)) : this.#uuid()
  }

  #query({ name, required, schema }: Parameter, isBroken: boolean): string[] {
    if (isBroken && this.#chance(0.2)) return [`${name}=${encode(this.#pick(ODDITIES))}`]
    if (isBroken && this.#chance(0.05)) return [`${name}=1`, `${name}=2`]
    if (isBroken && this.#chance(0.05)) return [name]
    if (!required && this.#chance(0.5)) return []
    return [`${name}=${encode(String(this.#value(schema, name)))}`]
  }

  #headers({ parameters, body }: Operation, isBroken: boolean): Record<string, string> {
    const headers: Record<string, string> = body ? { 'content-type': body.type } : {}
    for (const { name } of parameters.filter((parameter) => parameter.in === 'header')) {
      if (this.#chance(0.6) || name === 'content-encoding') continue
      headers[name] = this.#pick([
        '*',
        '"1"',
        '"2"',
        'W/"1"',
        '',
        'x',
        `key-${this.#integer(1, 20)}`,
      ])
    }
    if (this.#chance(0.1)) headers['if-none-match'] = this.#pick(['*', '"1"', '"x", "1"', '"'])
    if (this.#chance(0.1))
      headers['x-request-id'] = this.#pick(ODDITIES.filter((text) => SAFE_HEADER.test(text)))
    if (isBroken && this.#chance(0.1)) headers['content-type'] = this.#pick(MEDIA_TYPES)
    if (isBroken && this.#chance(0.1))
      headers['content-encoding'] = this.#pick(['gzip', 'br', 'identity', 'x, gzip'])
    if (isBroken && this.#chance(0.05))
      headers['origin'] = this.#pick(['null', 'https://evil.example', 'x'])
    if (isBroken && this.#chance(0.2)) Object.assign(headers, this.#pick(BROKEN_CREDENTIALS))
    return headers
  }

  #body(
    { type, schema }: { type: string; schema: Schema },
    headers: Record<string, string>,
    isBroken: boolean,
  ): string | Buffer {
    if (isBroken && this.#chance(0.2)) return this.#pick(ODD_BODIES)
    if (isBroken && this.#chance(0.05)) return Buffer.from([0xff, 0xfe, 0x00, 0x80])
    if (type !== 'application/json') return `a,b\n${this.#integer(1, 9)},x\n`
    const value = this.#value(schema, '') as Record<string, unknown>
    if (isBroken && this.#chance(0.5)) {
      const key = this.#pick([...Object.keys(value), 'extra'])
      value[key] = this.#pick([...ODDITIES, null, true, [], {}, -1, 1.5, 1e300, 2 ** 53])
    }
    if (isBroken && this.#chance(0.2)) delete value[this.#pick(Object.keys(value))]
    if (this.#chance(0.02)) headers['content-type'] = 'application/merge-patch+json'
    return JSON.stringify(value)
  }

  #value(schema: Schema, name: string): unknown {
    if (schema.$ref)
      return this.#value(this.#schemas[schema.$ref.split('/').at(-1) as string] ?? {}, name)
    if (schema.enum) return this.#pick(schema.enum)
    if (schema.properties) return this.#object(schema)
    if (schema.items) return [this.#value(schema.items, name)]
    const { minimum = 0, maximum = 1_000 } = schema
    const bound = this.#chance(0.01) ? maximum : Math.min(maximum, SOON[name] ?? maximum)
    if (schema.type === 'integer')
      return this.#chance(0.1) ? minimum : this.#integer(minimum, bound)
    if (schema.type === 'number') return minimum + this.#random() * (maximum - minimum)
    if (schema.format === 'password') return PASSWORD
    if (name === 'email') return this.#pick([MEMBER, `fuzz-${this.#integer(1, 999)}@example.com`])
    if (name === 'price') return `${this.#integer(0, 9_999)}.${this.#integer(10, 99)}`
    if (name === 'cursor') return this.#pick(['aWQ6MQ', ...[...this.#ids.values()].flat()])
    return this.#chance(0.05)
      ? this.#pick(ODDITIES)
      : `${name || 'text'} ${this.#integer(1, 1_000_000)}`
  }

  #object({ properties = {}, required = [] }: Schema): Record<string, unknown> {
    const chosen = Object.entries(properties).filter(
      ([name]) => required.includes(name) || this.#chance(0.6),
    )
    return Object.fromEntries(chosen.map(([name, schema]) => [name, this.#value(schema, name)]))
  }

  #uuid(): string {
    const hex = Array.from({ length: 32 }, () => this.#integer(0, 15).toString(16)).join('')
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-7${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`
  }

  #integer(min: number, max: number): number {
    return min + Math.floor(this.#random() * (max - min + 1))
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#integer(0, items.length - 1)] as T
  }

  #chance(share: number): boolean {
    return this.#random() < share
  }

  /** A linear congruential generator: from 0 to 1. */
  #random(): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0
    return this.#state / 2 ** 32
  }
}

/** As a careless client would: half a character becomes the one that stands for it. */
const encode = (text: string) => encodeURIComponent(text.toWellFormed())
