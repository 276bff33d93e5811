import { z } from '@hono/zod-openapi'
import { integerParameter, withDefault } from './params.ts'
import { validationFailed } from './router.ts'

/** What a list's query has besides its filters. */
export const pageQuery = {
  limit: withDefault(integerParameter(1, 100), 20),
  cursor: z.string().optional().openapi({ description: '`nextCursor` of the page before' }),
}

/** What a list answers with. */
export const pageFields = <Item extends z.ZodType>(item: Item) => ({
  items: z.array(item),
  nextCursor: z.string().nullable().openapi({ description: 'Null on the last page' }),
})

export interface PageRequest {
  limit: number
  cursor?: string | undefined
}

export interface Page<Item> {
  items: Item[]
  nextCursor: string | null
}

/**
 * How a list is read by pages. A cursor is opaque to clients and holds the id of the last item of a
 * page, so that a page is one range read, and items that come and go meanwhile shift nothing.
 */
export class Pager {
  readonly #prefix: string
  readonly #pattern: RegExp

  /**
   * @param prefix of what a cursor holds.
   * @param id what an id looks like, to refuse cursors that are not ours.
   */
  constructor(prefix: string, id: RegExp) {
    this.#prefix = prefix
    this.#pattern = new RegExp(`^${prefix}:(${id.source})$`)
  }

  /**
   * One page, by reading one item more than it has, which tells whether another page follows.
   *
   * @param read gives at most so many items that follow the one with the id `after`, or the first
   * ones.
   * @throws AppError `invalid` when the cursor is not one of ours.
   */
  async read<Item extends { id: string | number }>(
    { limit, cursor }: PageRequest,
    read: (after: string | undefined, limit: number) => Promise<Item[]>,
  ): Promise<Page<Item>> {
    const items = await read(cursor === undefined ? undefined : this.#decode(cursor), limit + 1)
    if (items.length <= limit) return { items, nextCursor: null }
    items.pop()
    return { items, nextCursor: this.#encode(items.at(-1) as Item) }
  }

  #encode({ id }: { id: string | number }): string {
    return Buffer.from(`${this.#prefix}:${id}`).toString('base64url')
  }

  #decode(cursor: string): string {
    const [, id] = Buffer.from(cursor, 'base64url').toString().match(this.#pattern) ?? []
    if (id !== undefined) return id
    throw validationFailed([
      { path: 'query.cursor', message: 'Not a cursor that this list returned' },
    ])
  }
}
