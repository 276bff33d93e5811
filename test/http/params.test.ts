import { z } from '@hono/zod-openapi'
import { expect, test } from 'vitest'
import { integerParameter, numberParameter, withDefault } from '../../src/http/params.ts'

const reasonsFor = (schema: z.ZodType, value: unknown) =>
  schema.safeParse(value).error?.issues.map(({ message }) => message)

test.each([
  [z.string(), undefined, 'Required'],
  [z.string(), 7, 'Must be a string'],
  [z.int(), 1.5, 'Must be a whole number'],
  [z.number(), Number.NaN, 'Must be a number'],
  [z.boolean(), 'yes', 'Must be true or false'],
  [z.array(z.int()), {}, 'Must be a list'],
  [z.object({}), null, 'Must be an object'],
  [z.string().min(1), '', 'Must have at least 1 characters'],
  [z.string().max(2), 'abc', 'Must have at most 2 characters'],
  [z.array(z.int()).max(1), [1, 2], 'Must have at most 1 items'],
  [z.int().min(0), -1, 'Must be at least 0'],
  [z.number().lt(1), 1, 'Must be less than 1'],
  [z.number().multipleOf(5), 7, 'Must be a multiple of 5'],
  [z.enum(['a', 'b']), 'c', 'Must be one of a, b'],
  [z.literal('a'), 'b', 'Must be a'],
  [z.uuid(), 'x', 'Must be a UUID'],
  [z.string().regex(/^\d$/), 'x', 'Must match /^\\d$/'],
  [z.string().regex(/^\d$/, 'Must be one digit'), 'x', 'Must be one digit'],
  [z.union([z.string(), z.int()]), true, 'Matches none of the allowed forms'],
  [z.strictObject({}), { x: 1 }, 'Unknown key'],
  [integerParameter(1, 9), '10', 'Must be a whole number from 1 to 9'],
  [integerParameter(1, 9), '1e0', 'Must be a whole number from 1 to 9'],
  [numberParameter(0, 1), 'Infinity', 'Must be a number from 0 to 1'],
])('%#: invalid input is rejected for one reason, in plain words', (schema, value, reason) => {
  expect(reasonsFor(schema, value)).toEqual([reason])
})

test('a number that is none is not judged any further', () => {
  const range = z.object({
    from: withDefault(integerParameter(0, 9), 3),
    to: integerParameter(0, 9),
  })
  const ordered = range.refine(({ from, to }) => from <= to, 'Must not be below from')
  expect(reasonsFor(ordered, { to: 'x' })).toEqual(['Must be a whole number from 0 to 9'])
  expect(reasonsFor(ordered, { to: '1' })).toEqual(['Must not be below from'])
})
