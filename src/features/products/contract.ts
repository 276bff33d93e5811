import { z } from '@hono/zod-openapi'
import { pageFields } from '../../http/pagination.ts'
import { integerParameter, text } from '../../http/params.ts'
import { event } from '../../realtime/event.ts'

const Price = z
  .string()
  .regex(
    /^\d{1,10}(\.\d{1,2})?$/,
    'A price is a decimal string such as "12.50": at most 10 digits before the point, 2 after',
  )
  .overwrite(toDecimal)
  .openapi({ example: '249.00' })

export const ProductInput = z
  .strictObject({
    name: text().trim().min(1).max(200).openapi({ example: 'Espresso machine' }),
    price: Price,
    stock: z.int().min(0).max(4_294_967_295).openapi({ example: 12 }),
  })
  .openapi('ProductInput')

export const ProductPatch = ProductInput.partial()
  .refine((patch) => Object.keys(patch).length > 0, 'Give at least one of name, price and stock')
  .openapi('ProductPatch')

// Not `extend`: in OpenAPI each schema would refuse the other's keys.
export const Product = z
  .strictObject({
    ...ProductInput.shape,
    id: z.int().openapi({ example: 7 }),
    version: z.int().openapi({ example: 1 }),
    createdAt: z.iso.datetime(),
    updatedAt: z.iso.datetime(),
  })
  .openapi('Product')

export const ProductPage = z.strictObject(pageFields(Product)).openapi('ProductPage')

export const ProductId = z.strictObject({
  id: integerParameter(1, 4_294_967_295).openapi({ example: 7 }),
})

const ProductChange = z.object({
  id: z.int().describe('the product'),
  version: z.int().describe('its current version: its `ETag`'),
  change: z.enum(['created', 'updated', 'deleted']).describe('what happened to it'),
})

export type ProductInput = z.infer<typeof ProductInput>
export type ProductPatch = z.infer<typeof ProductPatch>
export type Product = z.infer<typeof Product>
export type ProductChange = z.infer<typeof ProductChange>

/** The topic of all product changes. */
export const PRODUCTS = 'products'

export const productChanged = event('product.changed', {
  topic: PRODUCTS,
  when: 'After a product was created, changed or deleted.',
  payload: ProductChange,
})

/** Formats as DECIMAL(12,2) does: `7.5` as `7.50`, `007` as `7.00`. */
function toDecimal(price: string): string {
  const [whole = '', cents = ''] = price.split('.')
  return `${whole.replace(/^0+(?=\d)/, '')}.${cents.padEnd(2, '0')}`
}
