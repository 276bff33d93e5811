import { element } from '../element.js'
import { duration, number } from '../format.js'

const HOME = { x: -0.65, y: 0, scale: 3.6 }
const ZOOM = 3
const MAX_SCALE = 8
/** Limit of the precision of a double at this image size. */
const MIN_SCALE = 1e-11
const MAX_COORDINATE = 4
/** The service's bound. */
const MAX_SIZE = 2_048
const ASPECT = 2 / 3
/** Points take longer to escape the closer the view is. */
const ITERATIONS = { first: 400, eachZoom: 130, most: 5_000 }
const RESIZE_PAUSE_MS = 250

/** @typedef {typeof HOME} View the middle, and how much of the plane the longer side shows */

/**
 * An image that all worker threads draw together; a click zooms in.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = {
  title: 'Mandelbrot',
  order: 80,
  access: 'public',
  width: 'half',
  example: true,
  mount,
}

/** @type {import('../live.js').Panel['mount']} */
function mount(section, { api, status }) {
  const canvas = element('canvas')
  const picture = element(
    'button',
    { type: 'button', className: 'picture', onclick: zoomAt, onkeydown: move },
    canvas,
  )
  const zoomOut = element(
    'button',
    {
      type: 'button',
      'aria-label': 'Zoom out of the Mandelbrot set',
      onclick: () => go({ ...view, scale: view.scale * ZOOM }),
    },
    'Zoom out',
  )
  const reset = element(
    'button',
    {
      type: 'button',
      'aria-label': 'Reset the Mandelbrot set',
      disabled: true,
      onclick: () => go(HOME),
    },
    'Reset',
  )
  const caption = element('p', { className: 'hint', role: 'status' })
  const showCaption = status(caption)
  const buttons = element('div', { className: 'row' }, zoomOut, reset)
  const hint = element(
    'p',
    { className: 'hint' },
    element('span', { className: 'by-mouse' }, 'Click a place to zoom in; the arrow keys move.'),
    element('span', { className: 'by-touch' }, 'Tap a place to zoom in.'),
  )
  section.append(picture, element('div', { className: 'toolbar' }, caption, buttons), hint)

  let view = HOME
  let drawnWidth = 0
  /** @type {AbortController | undefined} */
  let drawing

  /** @param {View} next */
  function go(next) {
    view = clamp(next)
    void draw()
  }

  /** @param {PointerEvent} event from the keyboard it has no position: it zooms into the middle */
  function zoomAt({ detail, offsetX, offsetY }) {
    const step = view.scale / picture.clientWidth
    const right = detail === 0 ? 0 : (offsetX - picture.clientWidth / 2) * step
    const up = detail === 0 ? 0 : (picture.clientHeight / 2 - offsetY) * step
    go({ x: view.x + right, y: view.y + up, scale: view.scale / ZOOM })
  }

  /** @param {KeyboardEvent} event */
  function move(event) {
    const [right, up] = DIRECTIONS[event.key] ?? [0, 0]
    if (right === 0 && up === 0) return
    event.preventDefault()
    go({ ...view, x: view.x + (right * view.scale) / 5, y: view.y + (up * view.scale) / 5 })
  }

  async function draw() {
    // Folded away. It is drawn when it is shown.
    if (picture.clientWidth === 0) return
    drawing?.abort()
    drawing = new AbortController()
    const { signal } = drawing
    const startedAt = performance.now()
    drawnWidth = picture.clientWidth
    const size = sizeFor(drawnWidth)
    picture.setAttribute(
      'aria-label',
      `The Mandelbrot set around ${place(view)}: zoom in. The arrow keys move.`,
    )
    picture.setAttribute('aria-busy', 'true')
    try {
      const response = await api('GET', toUrl(view, size), { signal, background: view === HOME })
      const bitmap = await createImageBitmap(await response.blob())
      if (signal.aborted) return
      paint(canvas, bitmap)
      const details = `${size.width} × ${size.height} pixels in ${duration(performance.now() - startedAt)}`
      showCaption(`${number(HOME.scale / view.scale)} ×, ${details}`)
    } catch (error) {
      if (!signal.aborted) showCaption(/** @type {Error} */ (error))
    } finally {
      if (!signal.aborted) picture.removeAttribute('aria-busy')
      zoomOut.disabled = view.scale >= MAX_SCALE
      reset.disabled = view === HOME
    }
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let resting
  new ResizeObserver(() => {
    clearTimeout(resting)
    resting = setTimeout(() => picture.clientWidth !== drawnWidth && draw(), RESIZE_PAUSE_MS)
  }).observe(picture)
  void draw()
}

/** To the right, and up. @type {Record<string, [number, number]>} */
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }

/** @param {View} view @returns {View} within what the service draws */
function clamp(view) {
  if (view === HOME) return view
  const bound = (/** @type {number} */ value, /** @type {number} */ most) =>
    Math.min(Math.max(value, -most), most)
  const scale = Math.min(Math.max(view.scale, MIN_SCALE), MAX_SCALE)
  return { x: bound(view.x, MAX_COORDINATE), y: bound(view.y, MAX_COORDINATE), scale }
}

/** In pixels of the screen, up to the service's limit. @param {number} cssWidth */
function sizeFor(cssWidth) {
  const width = Math.min(Math.max(Math.round(cssWidth * devicePixelRatio), 16), MAX_SIZE)
  return { width, height: Math.round(width * ASPECT) }
}

/** @param {View} view @param {{ width: number, height: number }} size */
function toUrl({ x, y, scale }, { width, height }) {
  const { first, eachZoom, most } = ITERATIONS
  const zooms = Math.max(0, Math.log2(HOME.scale / scale))
  const iterations = Math.min(Math.round(first + eachZoom * zooms), most)
  const query = { width, height, iterations, x, y, scale }
  return `/v1/mandelbrot.png?${new URLSearchParams(Object.entries(query).map(([name, value]) => [name, `${value}`]))}`
}

/** @param {HTMLCanvasElement} canvas @param {ImageBitmap} bitmap */
function paint(canvas, bitmap) {
  canvas.width = bitmap.width
  canvas.height = bitmap.height
  canvas.getContext('2d')?.drawImage(bitmap, 0, 0)
  bitmap.close()
}

/** @param {View} view */
const place = ({ x, y }) => `${x.toFixed(4)} ${y < 0 ? '−' : '+'} ${Math.abs(y).toFixed(4)}i`
