import { type Deps, feature } from '../../feature.ts'
import { type AppContext, getContext } from '../../http/context.ts'
import {
  answerChanged,
  answerTagged,
  checkIfMatch,
  IfMatch,
  notModified,
  versionTag,
} from '../../http/etag.ts'
import { PageQuery } from '../../http/pagination.ts'
import { createRouter, json, jsonBody, withHeaders } from '../../http/router.ts'
import {
  PRODUCTS,
  Product,
  ProductId,
  ProductInput,
  ProductPage,
  ProductPatch,
  productChanged,
} from './contract.ts'
import {
  createProduct,
  deleteProduct,
  getProduct,
  listProducts,
  seedProducts,
  updateProduct,
} from './products.ts'

/** Plain async CRUD, and the shape to copy. */
export const products = feature({
  name: 'products',
  path: '/v1/products',
  routes: productRoutes,
  topics: [{ name: PRODUCTS, access: 'public' }],
  events: [productChanged],
  usesDatabase: true,
  seed: seedProducts,
  suggestions: [
    { curl: '$URL/v1/products/1' },
    { curl: "'$URL/v1/products?limit=3'" },
    {
      scope: 'products:write',
      curl:
        "$URL/v1/products -H 'content-type: application/json' " +
        `-d '{"name":"Teapot '$(date +%s)'","price":"24.50","stock":3}'`,
    },
  ],
  example: true,
  migrations: ['001-product'],
})

function productRoutes({ database, realtime }: Deps) {
  const router = createRouter()
  const nameTaken = { description: 'Another product has this name' }
  const getDb = (c: AppContext) => database.withSignal(getContext(c).signal)

  router.openapi({
    method: 'get',
    path: '/',
    operationId: 'listProducts',
    access: 'public',
    summary: 'List products, oldest first',
    request: { query: PageQuery },
    responses: { 200: withHeaders(json(ProductPage, 'One page'), 'ETag'), ...notModified },
    handler: async (c) => answerTagged(c, await listProducts(getDb(c), c.req.valid('query'))),
  })

  router.openapi({
    method: 'post',
    path: '/',
    operationId: 'createProduct',
    access: 'products:write',
    summary: 'Create a product',
    request: jsonBody(ProductInput),
    responses: { 201: withHeaders(json(Product, 'Created'), 'ETag', 'Location'), 409: nameTaken },
    handler: async (c) => {
      const product = await createProduct({ db: getDb(c), realtime }, c.req.valid('json'))
      return answerChanged(product, 201, { Location: `/v1/products/${product.id}` })
    },
  })

  router.openapi({
    method: 'get',
    path: '/{id}',
    operationId: 'readProduct',
    access: 'public',
    summary: 'Read a product',
    request: { params: ProductId },
    responses: { 200: withHeaders(json(Product, 'The product'), 'ETag'), ...notModified },
    handler: async (c) => {
      const product = await getProduct(getDb(c), c.req.valid('param').id)
      return answerTagged(c, product, versionTag(product.version))
    },
  })

  router.openapi({
    method: 'patch',
    path: '/{id}',
    operationId: 'updateProduct',
    access: 'products:write',
    summary: 'Change a part of a product',
    request: { params: ProductId, headers: IfMatch, ...jsonBody(ProductPatch) },
    responses: { 200: withHeaders(json(Product, 'Changed'), 'ETag'), 409: nameTaken },
    handler: async (c) => {
      const deps = { db: getDb(c), realtime }
      const { id } = c.req.valid('param')
      return answerChanged(await updateProduct(deps, id, c.req.valid('json'), checkIfMatch(c)), 200)
    },
  })

  router.openapi({
    method: 'delete',
    path: '/{id}',
    operationId: 'deleteProduct',
    access: 'products:write',
    summary: 'Delete a product',
    request: { params: ProductId, headers: IfMatch },
    responses: { 204: { description: 'Deleted' } },
    handler: async (c) => {
      await deleteProduct({ db: getDb(c), realtime }, c.req.valid('param').id, checkIfMatch(c))
      return c.body(null, 204)
    },
  })

  return router
}
