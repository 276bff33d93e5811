import { z } from '@hono/zod-openapi'

/** A whole number in a path or query, in digits: `z.coerce` would take '' for 0 and '1e3' for 1000. */
export const integerParameter = (min: number, max: number) => parameter('integer', /^\d{1,15}$/, min, max)

/** A finite decimal number in a path or query; `z.coerce` would take '' for 0, '0x10' for 16 and 'Infinity' as it is. */
export const numberParameter = (min: number, max: number) =>
  parameter('number', /^-?\d{1,20}(\.\d{1,40})?(e-?\d{1,3})?$/i, min, max)

const parameter = (type: 'integer' | 'number', form: RegExp, min: number, max: number) =>
  z
    .string()
    .refine(
      (text) => form.test(text) && Number(text) >= min && Number(text) <= max,
      `Must be a ${type === 'integer' ? 'whole number' : 'number'} from ${min} to ${max}`,
    )
    .transform(Number)
    .openapi({ type, minimum: min, maximum: max })
