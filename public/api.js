/** The service answered with problem+json (RFC 9457), or could not be reached. */
export class ApiError extends Error {
  /**
   * @param {string} detail
   * @param {{ status?: number, code?: string, requestId?: string, errors?: { path: string, message:
   * string }[] }} [problem] `status` is 0 without a response
   */
  constructor(detail, { status = 0, code = 'unreachable', requestId, errors } = {}) {
    super(detail)
    this.name = 'ApiError'
    this.status = status
    this.code = code
    this.requestId = requestId
    this.errors = errors
  }
}

/**
 * Calls the service: `await api('GET', '/v1/orders/1')`.
 *
 * @param {string} method
 * @param {string} path
 * @param {object} [options]
 * @param {unknown} [options.body] a plain object is sent as JSON; text, a Blob or a File as it is
 * @param {Record<string, string>} [options.headers]
 * @param {AbortSignal} [options.signal]
 * @param {boolean} [options.background] no user asked for this: the service logs it at `debug` if it
 * succeeds
 * @returns {Promise<any>} the JSON of the response, `undefined` if it is empty, otherwise the
 * Response itself
 * @throws {ApiError} for an error response, or without any; the signal's reason when it aborts
 */
export async function api(method, path, { body, headers = {}, signal, background = false } = {}) {
  const isJson = body !== undefined && Object.getPrototypeOf(body) === Object.prototype
  const response = await fetch(path, {
    method,
    headers: {
      ...(isJson && { 'Content-Type': 'application/json' }),
      ...(background && { 'X-Background': '1' }),
      ...headers,
    },
    body: isJson ? JSON.stringify(body) : /** @type {BodyInit} */ (body),
    signal,
  }).catch((error) => {
    throw signal?.aborted ? error : new ApiError('The service cannot be reached')
  })
  const type = response.headers.get('content-type') ?? ''
  if (!response.ok) throw await toError(response, type)
  if (response.status === 204) return undefined
  return type.startsWith('application/json') ? response.json() : response
}

/** @param {Response} response @param {string} type */
async function toError(response, type) {
  const problem = type.startsWith('application/problem+json') ? await response.json() : {}
  return new ApiError(problem.detail ?? response.statusText, {
    ...problem,
    status: response.status,
  })
}
