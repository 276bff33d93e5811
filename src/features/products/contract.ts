import { event } from '../../realtime/event.ts'

/** The topic of everything that happens to products. */
export const PRODUCTS = 'products'

export interface ProductChange {
  id: number
  version: number
  change: 'created' | 'updated' | 'deleted'
}

export const productChanged = event<ProductChange>()('product.changed', {
  topic: PRODUCTS,
  when: 'After a product was created, changed or deleted.',
  payload: {
    id: 'the product',
    version: 'the one it has now: its `ETag`',
    change: '`created`, `updated` or `deleted`',
  },
})
