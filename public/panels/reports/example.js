const ROWS = 150_000
const REGIONS = ['North', 'East', 'South', 'West', 'Islands']
const PRODUCTS = [
  'Kettle',
  'Lamp',
  'Chair',
  'Desk',
  'Clock',
  'Shelf',
  'Bottle',
  'Basket',
  'Mirror',
  'Rug',
]
const DAY_MS = 86_400_000

/** Two years of orders for those who have no CSV at hand, the same ones every time. */
export function exampleOrders() {
  const random = randomNumbers(7)
  /** Smaller places are more likely. @param {string[]} values */
  const pick = (values) => values[Math.floor(random() ** 1.7 * values.length)]
  const lines = ['order,ordered_on,region,product,quantity,total']
  const firstDay = Date.UTC(2025, 0, 1)
  for (let order = 1; order <= ROWS; order++) {
    const day = new Date(firstDay + Math.floor(random() ** 0.7 * 730) * DAY_MS)
      .toISOString()
      .slice(0, 10)
    const quantity = 1 + Math.floor(random() ** 3 * 12)
    // The sum of several is distributed like a bell.
    const price = 5 + (random() + random() + random() + random()) * 40
    lines.push(
      `${order},${day},${pick(REGIONS)},${pick(PRODUCTS)},${quantity},${(quantity * price).toFixed(2)}`,
    )
  }
  return new File([`${lines.join('\n')}\n`], 'orders.csv', { type: 'text/csv' })
}

/** From 0 to 1, a linear congruential generator. @param {number} seed */
function randomNumbers(seed) {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}
