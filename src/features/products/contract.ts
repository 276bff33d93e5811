import { z } from '@hono/zod-openapi'
import { event } from '../../realtime/event.ts'

/** The topic of everything that happens to products. */
export const PRODUCTS = 'products'

export const ProductChange = z.object({
  id: z.int().describe('the product'),
  version: z.int().describe('its current version: its `ETag`'),
  change: z.enum(['created', 'updated', 'deleted']).describe('what happened to it'),
})

export type ProductChange = z.infer<typeof ProductChange>

export const productChanged = event('product.changed', {
  topic: PRODUCTS,
  when: 'After a product was created, changed or deleted.',
  payload: ProductChange,
})
