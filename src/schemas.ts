import { z } from '@hono/zod-openapi'

/** A whole number in a path or query, in digits: `z.coerce` would take '' for 0 and '1e3' for 1000. */
export const integerParameter = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, `Must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .pipe(z.int().min(min).max(max))
    .openapi({ type: 'integer', minimum: min, maximum: max })
