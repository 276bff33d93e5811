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
export const panel = { title: 'Products', order: 70, access: 'public', width: 'narrow', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, { api, live, whyNot }) {
  const sell = element('button', { type: 'button', onclick: () => change(-1) }, 'Sell one')
  const restock = element('button', { type: 'button', onclick: () => change(20) }, 'Restock 20')
  const list = element('ul', { className: 'products' })
  const status = element(
    'p',
    { className: 'hint', role: 'status' },
    whyNot('products:write') ?? 'Changes one product; every open page shows it.',
  )
  sell.disabled = restock.disabled = whyNot('products:write') !== undefined
  section.append(element('div', { className: 'row' }, sell, restock), status, list)

  /** The latest change first. @type {Product[]} */
  let products = []
  /** Changed and not read yet. @type {Map<number, string>} */
  const changed = new Map()
  let isReading = false

  /** Retries until it succeeds: a service that has just started may not answer yet. */
  async function readAll() {
    try {
      put((await api('GET', `/v1/products?limit=${CANDIDATES}`, { background: true })).items)
      show()
    } catch (error) {
      showStatus(/** @type {Error} */ (error).message, true)
      setTimeout(readAll, RETRY_MS)
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

  async function readChanged() {
    if (changed.size === 0 || isReading) return
    const latest = [...changed].slice(-SHOWN)
    changed.clear()
    isReading = true
    const read = await Promise.all(
      latest.map(([id, change]) => (change === 'deleted' ? undefined : readOne(id))),
    )
    isReading = false
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
    if (!product) return showStatus('There is no product to change: create one first', true)
    const { id, name, stock, version } = product
    try {
      await api('PATCH', `/v1/products/${id}`, {
        body: { stock: stock + by },
        headers: { 'If-Match': `"${version}"` },
      })
      showStatus(`${name}: ${stock} became ${stock + by}`)
    } catch (error) {
      const { status, message } = /** @type {import('../api.js').ApiError} */ (error)
      showStatus(
        status === 412 ? `Somebody else changed ${name} meanwhile. Try again` : message,
        true,
      )
      changed.set(id, 'updated')
    }
  }

  /** @param {string} text @param {boolean} [isError] */
  function showStatus(text, isError = false) {
    status.textContent = text
    status.classList.toggle('error', isError)
  }

  live.subscribe('products')
  live.on('product.changed', ({ id, change }) => {
    changed.delete(id)
    changed.set(id, change)
  })
  live.onReconnect(readAll)
  setInterval(readChanged, READ_EVERY_MS)
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
