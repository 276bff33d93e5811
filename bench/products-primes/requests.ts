import type autocannon from 'autocannon'

export const PRIMES_PATH = '/v1/primes?to=1400000'

/** Those that the database is seeded with, read in turn. */
export const PRODUCT_PATHS = Array.from(
  { length: 100 },
  (_, index) => `/v1/products/${index * 10 + 1}`,
)

/** What costs the service the least, so that whatever is added to a request shows most. */
export const READ_BY_ID: Omit<autocannon.Options, 'url'> = {
  requests: PRODUCT_PATHS.map((path) => ({ path })),
}
