import { AppError } from '../../src/errors.ts'

/**
 * A job's input or result as the row keeps it; nothing at all becomes `null`.
 *
 * @throws TypeError when JSON cannot say it; AppError `too_large`. Neither can be helped by trying
 * again.
 */
export function toJson(value: unknown, what: string, maxBytes: number): string {
  const text = value === undefined ? 'null' : stringify(value, what)
  const bytes = Buffer.byteLength(text)
  if (bytes > maxBytes)
    throw new AppError(
      'too_large',
      `${what} has ${bytes} bytes as JSON, the most is ${maxBytes}: keep large data elsewhere`,
      {
        retryable: false,
      },
    )
  return text
}

function stringify(value: unknown, what: string): string {
  try {
    const text: string | undefined = JSON.stringify(value)
    if (text !== undefined) return text
  } catch (cause) {
    throw refusal(what, cause)
  }
  throw refusal(what, undefined)
}

const refusal = (what: string, cause: unknown) =>
  Object.assign(new TypeError(`${what} cannot be written as JSON`, { cause }), { retryable: false })
