import type { Generated, GeneratedAlways } from 'kysely'

/** One entry a table, as `migrations/` creates it. */
export interface Tables {
  product: ProductTable
}

interface ProductTable {
  id: GeneratedAlways<number>
  name: string
  /** DECIMAL(12,2): a string, because a JavaScript number cannot hold every amount. */
  price: string
  stock: number
  version: Generated<number>
  created_at: GeneratedAlways<Date>
  updated_at: GeneratedAlways<Date>
}
