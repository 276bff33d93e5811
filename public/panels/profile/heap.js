import { element, scrollRegion } from '../../element.js'
import { bytes, duration } from '../../format.js'

/** @typedef {import('../../../src/ops/profiles.ts').Heap} Heap */

/** Figures of V8's heap, and a snapshot of it. @param {import('../../live.js').PanelContext} context */
export function heapSection({ api, live }) {
  const body = element('tbody')
  const heads = ['Space', 'In use', 'Reserved'].map((text, index) =>
    element('th', { scope: 'col', className: index > 0 ? 'number' : '' }, text),
  )
  const readAgain = element(
    'button',
    { type: 'button', onclick: () => read() },
    'Read the heap again',
  )
  const take = element(
    'button',
    { type: 'button', disabled: true, 'aria-describedby': 'heap-snapshot-cost' },
    'Take a heap snapshot',
  )
  const cost = element('p', { className: 'hint', id: 'heap-snapshot-cost' })
  const status = element('p', { className: 'hint', role: 'status' })
  take.onclick = takeSnapshot

  async function read(background = false) {
    try {
      /** @type {Heap} */
      const heap = await api('GET', '/v1/ops/heap', { background })
      body.replaceChildren(...listSpaces(heap))
      take.disabled = !heap.snapshot.allowed
      cost.textContent = describeCost(heap.snapshot)
      say('')
    } catch (error) {
      say(/** @type {Error} */ (error).message, true)
    }
  }

  async function takeSnapshot() {
    take.disabled = true
    say('Taking a heap snapshot')
    try {
      const response = await api('POST', '/v1/ops/heap-snapshot')
      const blob = await response.blob()
      save(blob, readFileName(response))
      say(`Took a heap snapshot of ${bytes(blob.size)}`)
    } catch (error) {
      say(/** @type {Error} */ (error).message, true)
    } finally {
      take.disabled = false
    }
  }

  /** @param {string} text */
  function say(text, isError = false) {
    status.textContent = text
    status.classList.toggle('error', isError)
  }

  live.onReconnect(() => read(true))
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...heads)), body)
  return element(
    'div',
    { className: 'profile heap' },
    element('h3', {}, 'Heap of the event loop'),
    scrollRegion('Heap spaces', table),
    element('div', { className: 'row' }, readAgain, take),
    cost,
    status,
  )
}

/** @param {Heap} heap */
function listSpaces({ spaces, used, total, limit }) {
  const row = (/** @type {string} */ name, /** @type {string[]} */ ...figures) =>
    element(
      'tr',
      {},
      element('th', { scope: 'row' }, name),
      ...figures.map((text) => element('td', { className: 'number' }, text)),
    )
  return [
    ...spaces
      .filter((space) => space.total > 0)
      .map((space) => row(space.name.replaceAll('_', ' '), bytes(space.used), bytes(space.total))),
    row('all', bytes(used), `${bytes(total)} of at most ${bytes(limit)}`),
  ]
}

/** @param {Heap['snapshot']} snapshot */
const describeCost = ({ allowed, blockedMs }) =>
  allowed
    ? `It blocks the event loop for about ${duration(blockedMs)}. The file holds whatever is in memory, secrets included.`
    : 'Only in development (NODE_ENV=development): a heap snapshot blocks the event loop and holds secrets.'

/** @param {Response} response */
export const readFileName = ({ headers }) =>
  headers.get('content-disposition')?.match(/filename="(.*)"/)?.[1] ?? ''

/** Lets the browser save a file. @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const href = URL.createObjectURL(blob)
  element('a', { href, download: name }).click()
  // Once the download has begun.
  setTimeout(() => URL.revokeObjectURL(href), 60_000)
}
