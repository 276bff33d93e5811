import { z } from '@hono/zod-openapi'

/** A whole number in a path or query, in digits: `z.coerce` would take '' for 0 and '1e3' for 1000. */
export const integerParameter = (min: number, max: number) =>
  parameter(/^\d{1,15}$/, `Must be a whole number from ${min} to ${max}`, min, max).openapi({
    type: 'integer',
    minimum: min,
    maximum: max,
  })

/** A finite decimal number in a path or query; `z.coerce` would take '' for 0, '0x10' for 16 and 'Infinity' as it is. */
export const numberParameter = (min: number, max: number) =>
  parameter(/^-?\d{1,20}(\.\d{1,40})?(e-?\d{1,3})?$/i, `Must be a number from ${min} to ${max}`, min, max).openapi({
    type: 'number',
    minimum: min,
    maximum: max,
  })

const parameter = (form: RegExp, message: string, min: number, max: number) =>
  z
    .string()
    .refine((text) => form.test(text) && Number(text) >= min && Number(text) <= max, message)
    .transform(Number)
