import { z } from '@hono/zod-openapi'
import { pageFields, pageQuery } from '../../http/pagination.ts'
import { integerParameter, text } from '../../http/params.ts'

const Name = text().trim().min(1).max(200).openapi({ example: 'Espresso machine' })
const Price = z
  .string()
  .regex(
    /^\d{1,10}(\.\d{1,2})?$/,
    'A price is a decimal string such as "12.50", with at most 10 digits before the point and 2 after',
  )
  .overwrite(toDecimal)
  .openapi({ example: '249.00' })
const Stock = z.int().min(0).max(4_294_967_295).openapi({ example: 12 })

export const ProductInput = z
  .strictObject({ name: Name, price: Price, stock: Stock })
  .openapi('ProductInput')

export const ProductPatch = ProductInput.partial()
  .refine((patch) => Object.keys(patch).length > 0, 'Give at least one of name, price and stock')
  .openapi('ProductPatch')

// Not `extend`, which OpenAPI shows as both schemas at once: no object would be both, as neither
// takes the other's keys.
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

export const PageQuery = z.strictObject(pageQuery)

export type ProductInput = z.infer<typeof ProductInput>
export type ProductPatch = z.infer<typeof ProductPatch>
export type Product = z.infer<typeof Product>
export type ProductPage = z.infer<typeof ProductPage>

/**
 * As DECIMAL(12,2) prints it: `7.5` as `7.50`, `007` as `7.00`. A text of another form stays what
 * it is: it is refused.
 */
function toDecimal(price: string): string {
  const [whole = '', cents = ''] = price.split('.')
  return `${whole.replace(/^0+(?=\d)/, '')}.${cents.padEnd(2, '0')}`
}
