import { z } from '@hono/zod-openapi'
import { integerParameter, withDefault } from './params.ts'
import { validationFailed } from './router.ts'

export const PageQuery = z.strictObject({
  limit: withDefault(integerParameter(1, 100), 20),
  cursor: z.string().optional().openapi({ description: '`nextCursor` of the previous page' }),
})

export type PageRequest = z.infer<typeof PageQuery>

export const pageFields = <Item extends z.ZodType>(item: Item) => ({
  items: z.array(item),
  nextCursor: z.string().nullable().openapi({ description: 'Null on the last page' }),
})

/**
 * A cursor holds the id of a page's last item, so items inserted or deleted meanwhile shift
 * nothing.
 */
export class Pager {
  readonly #prefix: string
  readonly #pattern: RegExp

  /**
   * @param prefix distinguishes this list's cursors.
   * @param id the pattern of an id.
   */
  constructor(prefix: string, id: RegExp) {
    this.#prefix = prefix
    this.#pattern = new RegExp(`^${prefix}:(${id.source})$`)
  }

  /**
   * Reads one more item to see whether another page follows.
   *
   * @param read returns at most `limit` items after the id `after`.
   * @throws AppError `invalid` for a cursor of another list.
   */
  async read<Item extends { id: string | number }>(
    { limit, cursor }: PageRequest,
    read: (after: string | undefined, limit: number) => Promise<Item[]>,
  ) {
    const items = await read(cursor === undefined ? undefined : this.#decode(cursor), limit + 1)
    if (items.length <= limit) return { items, nextCursor: null }
    items.pop()
    const last = `${this.#prefix}:${items.at(-1)?.id}`
    return { items, nextCursor: Buffer.from(last).toString('base64url') }
  }

  #decode(cursor: string): string {
    const [, id] = Buffer.from(cursor, 'base64url').toString().match(this.#pattern) ?? []
    if (id !== undefined) return id
    throw validationFailed([{ path: 'query.cursor', message: 'Not a cursor of this list' }])
  }
}
