import { element } from '../element.js'
import { timeOfDay } from '../format.js'

const SHOWN = 8
/** Products to change: the oldest ones. */
const CANDIDATES = 50
/** However many change: the last few of them are read, so often. */
const READ_EVERY_MS = 400
const FRESH_MS = 1_500

/**
 * @typedef {object} Product
 * @property {number} id
 * @property {string} name
 * @property {string} price
 * @property {number} stock
 * @property {number} version
 * @property {string} updatedAt
 */

/** Products as they change, the latest change first. @type {import('../live.js').Mount} */
export function mount(section, { api, live }) {
  const sell = element('button', { type: 'button', onclick: () => change(-1) }, 'Sell one')
  const restock = element('button', { type: 'button', onclick: () => change(20) }, 'Restock 20')
  const list = element('ul', { className: 'products' })
  const news = element('p', { className: 'hint', role: 'status' }, 'Of some product: every page that is open hears of it.')
  section.append(element('div', { className: 'row' }, sell, restock), news, list)

  /** The latest change last. @type {Map<number, Product>} */
  const products = new Map()
  /** Changed, and not read yet. @type {Map<number, string>} */
  const changed = new Map()

  async function readAll() {
    const { items } = await api('GET', `/v1/products?limit=${CANDIDATES}`)
    const byTime = items.toSorted((/** @type {Product} */ a, /** @type {Product} */ b) => a.updatedAt.localeCompare(b.updatedAt))
    for (const product of byTime) put(product)
    show()
  }

  /** @param {Product} product an older version than the one that is known changes nothing */
  function put(product) {
    const known = products.get(product.id)
    if (known && known.version >= product.version) return false
    products.delete(product.id)
    products.set(product.id, product)
    return true
  }

  /** @param {Set<number>} [fresh] */
  function show(fresh = new Set()) {
    const latest = [...products.values()].slice(-SHOWN).reverse()
    list.replaceChildren(...latest.map((product) => itemOf(product, fresh.has(product.id))))
  }

  async function readChanged() {
    if (changed.size === 0 || document.hidden) return
    const latest = [...changed].slice(-SHOWN)
    changed.clear()
    const fresh = new Set()
    await Promise.allSettled(
      latest.map(async ([id, what]) => {
        if (what === 'deleted') return products.delete(id)
        const product = await api('GET', `/v1/products/${id}`)
        if (put(product)) fresh.add(id)
      }),
    )
    // One that is gone by now, or a service that is too busy: what could not be read stays as it was.
    show(fresh)
  }

  /** @param {number} by how many are there more afterwards */
  async function change(by) {
    const product = randomOf([...products.values()].filter(({ stock }) => stock + by >= 0))
    if (!product) return tell('There is no product to change: create one first', true)
    const { id, name, stock, version } = product
    try {
      await api('PATCH', `/v1/products/${id}`, { body: { stock: stock + by }, headers: { 'If-Match': `"${version}"` } })
      tell(`${name}: ${stock} became ${stock + by}`)
    } catch (error) {
      const { status, message } = /** @type {import('../api.js').ApiError} */ (error)
      tell(status === 412 ? `Somebody else changed ${name} meanwhile. Try again` : message, true)
      changed.set(id, 'updated')
    }
  }

  /** @param {string} text @param {boolean} [isError] */
  function tell(text, isError = false) {
    news.textContent = text
    news.classList.toggle('error', isError)
  }

  live.subscribe('products')
  live.on('product.changed', ({ id, change }) => {
    changed.delete(id)
    changed.set(id, change)
  })
  live.onReconnect(() => readAll().catch((error) => tell(error.message, true)))
  setInterval(readChanged, READ_EVERY_MS)
}

/** @param {Product} product @param {boolean} isFresh it has just changed */
function itemOf({ id, name, price, stock, updatedAt }, isFresh) {
  const item = element(
    'li',
    { 'data-product': `${id}` },
    element('span', { className: 'name' }, name),
    element('b', {}, `${stock} in stock`),
    element('span', { className: 'hint' }, price),
    element('span', { className: 'hint' }, timeOfDay(updatedAt)),
  )
  if (isFresh) {
    item.dataset.fresh = ''
    setTimeout(() => delete item.dataset.fresh, FRESH_MS)
  }
  return item
}

/** @template Item @param {Item[]} items @returns {Item | undefined} */
const randomOf = (items) => items[Math.floor(Math.random() * items.length)]
