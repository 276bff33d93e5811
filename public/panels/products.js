import { element } from '../element.js'
import { timeOfDay } from '../format.js'

const SHOWN = 8
/** Products that the buttons change. */
const CANDIDATES = 50
const KEPT = 100
/** Of many changes, only the last few are read in this interval. */
const READ_EVERY_MS = 400
const RETRY_MS = 1_000
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

/**
 * Products as they change, the latest change first.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = {
  title: 'Products',
  order: 85,
  access: 'public',
  width: 'half',
  example: true,
  mount,
}

/** @type {import('../live.js').Panel['mount']} */
function mount(section, context) {
  const { api, live, whyNot } = context
  const sell = element('button', { type: 'button', onclick: () => change(-1) }, 'Sell one product')
  const restock = element(
    'button',
    { type: 'button', onclick: () => change(20) },
    'Restock a product by 20',
  )
  const list = element('ul', { className: 'products' })
  const hint = whyNot('products:write') ?? 'Changes one product; every open page shows it.'
  const status = element('p', { className: 'hint', role: 'status' }, hint)
  const showStatus = context.status(status)
  sell.disabled = restock.disabled = whyNot('products:write') !== undefined
  section.append(element('div', { className: 'row' }, sell, restock), status, list)

  /** The latest change first. @type {Product[]} */
  let products = []
  /** Changed and not read yet. @type {Map<number, string>} */
  const changed = new Map()
  let isReading = false
  let hasFailed = false

  /** Retries until it succeeds: a service that has just started may not answer yet. */
  async function readAll() {
    try {
      put((await api('GET', `/v1/products?limit=${CANDIDATES}`, { background: true })).items)
      show()
      if (hasFailed) showStatus(hint)
      hasFailed = false
    } catch (error) {
      showStatus(/** @type {Error} */ (error))
      hasFailed = true
      // A tab that is shown again reads by itself.
      if (!document.hidden) setTimeout(readAll, RETRY_MS)
    }
  }

  /**
   * @param {Product[]} read responses may come out of order: the higher version wins
   */
  function put(read) {
    const known = new Map(products.map((product) => [product.id, product]))
    const newer = read.filter(({ id, version }) => version > (known.get(id)?.version ?? 0))
    for (const product of newer) known.set(product.id, product)
    products = [...known.values()]
      .sort((a, b) => b.updatedAt.localeCompare(a.updatedAt))
      .slice(0, KEPT)
    return new Set(newer.map(({ id }) => id))
  }

  /** @param {Set<number>} [fresh] */
  function show(fresh = new Set()) {
    list.replaceChildren(
      ...products.slice(0, SHOWN).map((product) => toItem(product, fresh.has(product.id))),
    )
  }

  function readSoon() {
    if (!isReading) setTimeout(readChanged, READ_EVERY_MS)
    isReading = true
  }

  async function readChanged() {
    const latest = [...changed].slice(-SHOWN)
    changed.clear()
    const read = await Promise.all(
      latest.map(([id, change]) => (change === 'deleted' ? undefined : readOne(id))),
    )
    isReading = false
    if (changed.size > 0) readSoon()
    const gone = new Set(latest.filter((_, place) => read[place] === undefined).map(([id]) => id))
    products = products.filter(({ id }) => !gone.has(id))
    show(put(read.filter(Boolean)))
  }

  /** Undefined if it was deleted; unchanged if the service does not answer. @param {number} id */
  const readOne = (id) =>
    api('GET', `/v1/products/${id}`, { background: true }).catch(({ status }) =>
      status === 404 ? undefined : products.find((known) => known.id === id),
    )

  /** @param {number} by added to the stock */
  async function change(by) {
    const product = pickRandom(products.filter(({ stock }) => stock + by >= 0))
    if (!product) return showStatus(new Error('There is no product to change: create one first'))
    const { id, name, stock, version } = product
    try {
      await api('PATCH', `/v1/products/${id}`, {
        body: { stock: stock + by },
        headers: { 'If-Match': `"${version}"` },
      })
      showStatus(`${name}: ${stock} became ${stock + by}`)
    } catch (error) {
      const { status } = /** @type {import('../api.js').ApiError} */ (error)
      showStatus(
        status === 412
          ? new Error(`Somebody else changed ${name} meanwhile. Try again`)
          : /** @type {Error} */ (error),
      )
      changed.set(id, 'updated')
      readSoon()
    }
  }

  live.subscribe('products')
  live.on('product.changed', ({ id, change }) => {
    changed.delete(id)
    changed.set(id, change)
    readSoon()
  })
  live.onReconnect(readAll)
}

/** @param {Product} product @param {boolean} isFresh it has just changed */
function toItem({ id, name, price, stock, updatedAt }, isFresh) {
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
const pickRandom = (items) => items[Math.floor(Math.random() * items.length)]
