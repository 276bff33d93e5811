import { onThemeChange, themeColour } from '../../chart.js'
import { element } from '../../element.js'
import { duration, percent } from '../../format.js'
import { layOut } from './call-tree.js'

/** @typedef {import('./call-tree.js').Frame} Frame */
/** @typedef {import('./call-tree.js').Bar} Bar */
/** @typedef {import('./call-tree.js').CallTree} CallTree */
/** @typedef {import('./call-tree.js').Category} Category */

/** In pixels. */
const ROW_HEIGHT = 20
const FINGER_ROW_HEIGHT = 44
const MIN_LABEL_WIDTH = 30
const LABEL_PADDING = 4
const FONT = '12px system-ui, sans-serif'

/** @type {Record<Category, { label: string, colour: string }>} */
export const CATEGORIES = {
  own: { label: 'Own code', colour: '--task-1' },
  package: { label: 'Packages', colour: '--task-2' },
  node: { label: 'Node', colour: '--task-3' },
  native: { label: 'Native code, garbage collection', colour: '--control-line' },
}

/** @type {Record<string, 'parent' | 'child' | 'before' | 'after'>} */
const ARROWS = { ArrowUp: 'parent', ArrowDown: 'child', ArrowLeft: 'before', ArrowRight: 'after' }

/** `1.23 s (45.6 %)`. @param {number} ms @param {number} ofMs */
export const formatTime = (ms, ofMs) =>
  `${duration(ms)} (${percent(Math.round((ms / ofMs) * 1_000) / 1_000)})`

/** A call tree on a canvas, callers above what they called, that pointer and keys explore. */
export class FlameGraph {
  element
  /** @type {Bar[]} */
  bars = []
  /** @type {Frame | undefined} */
  chosen
  /** @type {Frame | undefined} */
  zoomed
  #canvas = element('canvas', { 'aria-hidden': 'true' })
  #tip = element('div', { className: 'tip', hidden: true })
  #spoken = element('p', { className: 'visually-hidden', role: 'status' })
  #isFinger = matchMedia('(pointer: coarse)')
  #onZoom
  /** @type {CallTree | undefined} */
  #tree
  /** @type {Set<import('./call-tree.js').Callee>} */
  #matches = new Set()
  #isDrawing = false

  /** @param {{ describedBy: string, onZoom: (isZoomed: boolean) => void }} options */
  constructor({ describedBy, onZoom }) {
    this.#onZoom = onZoom
    const surface = element(
      'div',
      {
        className: 'flame-surface',
        tabIndex: 0,
        role: 'application',
        'aria-label': 'Flame graph',
        'aria-describedby': describedBy,
        onpointermove: (/** @type {PointerEvent} */ event) => this.#point(event),
        onpointerleave: () => this.#choose(undefined),
        onclick: (/** @type {PointerEvent} */ event) => this.#click(event),
        onkeydown: (/** @type {KeyboardEvent} */ event) => this.#press(event),
        onblur: () => this.#choose(undefined),
      },
      this.#canvas,
    )
    this.element = element('div', { className: 'flame-graph' }, surface, this.#tip, this.#spoken)
    onThemeChange(() => this.#redraw())
    this.#isFinger.addEventListener('change', () => this.#redraw())
    new ResizeObserver(() => this.#redraw()).observe(surface)
  }

  /** @param {CallTree} tree */
  show(tree) {
    this.#tree = tree
    this.#matches = new Set()
    this.zoom(tree.root)
  }

  /** @param {Set<import('./call-tree.js').Callee>} callees */
  mark(callees) {
    this.#matches = callees
    this.#redraw()
  }

  /** Gives a frame the whole width; by default the root. */
  zoom(frame = this.#tree?.root) {
    this.zoomed = frame
    this.#choose(undefined)
    this.#onZoom(frame !== this.#tree?.root)
    this.#redraw()
  }

  get #rowHeight() {
    return this.#isFinger.matches ? FINGER_ROW_HEIGHT : ROW_HEIGHT
  }

  /** Draws once in the next animation frame, however often it is called. */
  #redraw() {
    if (this.#isDrawing) return
    this.#isDrawing = true
    requestAnimationFrame(() => {
      this.#isDrawing = false
      this.#draw()
    })
  }

  #draw() {
    const width = this.#canvas.parentElement?.clientWidth ?? 0
    if (!this.zoomed || width === 0) return
    this.bars = layOut(this.zoomed, width)
    const rows = this.bars.reduce((most, { row }) => Math.max(most, row + 1), 0)
    const context = resize(this.#canvas, width, rows * this.#rowHeight)
    if (!context) return
    const colours = readColours()
    context.font = FONT
    context.textBaseline = 'middle'
    for (const bar of this.bars) this.#drawBar(context, bar, colours)
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Bar} bar
   * @param {ReturnType<typeof readColours>} colours
   */
  #drawBar(context, { frame, left, width, row }, colours) {
    const height = this.#rowHeight
    const top = row * height
    const isMatch = this.#matches.has(frame.callee)
    // A pixel between neighbours, where there is room for it.
    const bar = width > 3 ? width - 1 : width
    context.globalAlpha = this.#matches.size > 0 ? (isMatch ? 0.8 : 0.12) : 0.35
    context.fillStyle = colours.categories[frame.callee.category]
    context.fillRect(left, top, bar, height - 1)
    context.globalAlpha = 1
    if (frame === this.chosen) {
      context.strokeStyle = colours.ink
      context.lineWidth = 2
      context.strokeRect(left + 1, top + 1, Math.max(1, bar - 2), height - 3)
    }
    if (width < MIN_LABEL_WIDTH) return
    context.fillStyle = colours.ink
    const label = shorten(context, this.#labelOf(frame), width - 2 * LABEL_PADDING)
    context.fillText(label, left + LABEL_PADDING, top + height / 2)
  }

  /** @param {Frame} frame */
  #nameOf = (frame) => (frame.parent ? frame.callee.name : 'All')

  /** With the name of the file, not its folders. @param {Frame} frame */
  #labelOf(frame) {
    const { place } = frame.callee
    return place ? `${frame.callee.name} (${place.replace(/.*\//, '')})` : this.#nameOf(frame)
  }

  /** @param {{ offsetX: number, offsetY: number }} point */
  #barAt({ offsetX, offsetY }) {
    const row = Math.floor(offsetY / this.#rowHeight)
    return this.bars.find(
      (bar) => bar.row === row && offsetX >= bar.left && offsetX < bar.left + bar.width,
    )
  }

  /** @param {PointerEvent} event */
  #point(event) {
    if (event.pointerType === 'touch') return
    this.#choose(this.#barAt(event), event)
  }

  /** A finger first shows what it touches. @param {PointerEvent} event */
  #click(event) {
    const bar = this.#barAt(event)
    if (bar && bar.frame === this.chosen) this.zoom(bar.frame)
    else this.#choose(bar, event)
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const { key } = event
    const to = ARROWS[key]
    if (to) this.#move(to)
    else if (key === 'Enter' && this.chosen) this.zoom(this.chosen)
    else if (key === 'Escape' && this.zoomed?.parent) this.zoom()
    else return
    event.preventDefault()
  }

  /** @param {'parent' | 'child' | 'before' | 'after'} to */
  #move(to) {
    const from = this.bars.find(({ frame }) => frame === this.chosen)
    const bar = from
      ? this.#neighbour(from, to)
      : this.bars.find(({ frame }) => frame === this.zoomed)
    if (!bar) return
    const top = bar.row * this.#rowHeight
    const surface = /** @type {HTMLElement} */ (this.#canvas.parentElement)
    const lowest = top - surface.clientHeight + this.#rowHeight
    surface.scrollTop = Math.min(top, Math.max(lowest, surface.scrollTop))
    const canvas = this.#canvas.getBoundingClientRect()
    const clientY = canvas.top + top + this.#rowHeight
    this.#choose(bar, { clientX: canvas.left + bar.left, clientY })
    this.#spoken.textContent = [...this.#tip.children].map((line) => line.textContent).join(', ')
  }

  /** @param {Bar} from @param {'parent' | 'child' | 'before' | 'after'} to */
  #neighbour({ frame, left, row }, to) {
    if (to === 'parent') return this.bars.find((bar) => bar.frame === frame.parent)
    if (to === 'child') return this.bars.find((bar) => bar.row === row + 1 && bar.left >= left)
    const inRow = this.bars.filter((bar) => bar.row === row)
    const place = inRow.findIndex((bar) => bar.frame === frame)
    return inRow[place + (to === 'after' ? 1 : -1)]
  }

  /** @param {Bar | undefined} bar @param {{ clientX: number, clientY: number }} [at] */
  #choose(bar, at) {
    if (bar && at) placeTip(this.#tip, at)
    if (bar?.frame === this.chosen) return
    this.chosen = bar?.frame
    this.#tip.hidden = !bar
    if (bar) this.#tip.replaceChildren(...this.#describe(bar.frame))
    this.#redraw()
  }

  /** @param {Frame} frame */
  #describe(frame) {
    const { callee, selfMs, totalMs } = frame
    const busyMs = this.#tree?.busyMs ?? 0
    return [
      element('b', {}, this.#nameOf(frame)),
      ...(frame.parent ? [element('code', {}, callee.place || 'native code')] : []),
      element('span', {}, `self ${formatTime(selfMs, busyMs)}`),
      element('span', {}, `total ${formatTime(totalMs, busyMs)}`),
    ]
  }
}

/** @param {HTMLCanvasElement} canvas @param {number} width @param {number} height of the page */
function resize(canvas, width, height) {
  const ratio = devicePixelRatio
  canvas.style.setProperty('height', `${height}px`)
  canvas.width = Math.round(width * ratio)
  canvas.height = Math.round(height * ratio)
  const context = canvas.getContext('2d')
  context?.setTransform(ratio, 0, 0, ratio, 0, 0)
  return context
}

function readColours() {
  const entries = Object.entries(CATEGORIES).map(([name, { colour }]) => [
    name,
    themeColour(colour),
  ])
  const categories = /** @type {Record<Category, string>} */ (Object.fromEntries(entries))
  return { categories, ink: themeColour('--ink') }
}

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} width */
function shorten(context, text, width) {
  if (context.measureText(text).width <= width) return text
  const fitting = Math.floor((text.length * width) / context.measureText(text).width) - 1
  return fitting > 0 ? `${text.slice(0, fitting)}…` : ''
}

/** Beside a point of the window, on the side where there is room. */
function placeTip(
  /** @type {HTMLElement} */ tip,
  /** @type {{ clientX: number, clientY: number }} */ { clientX, clientY },
) {
  const { clientWidth, clientHeight } = document.documentElement
  const isLeft = clientX < clientWidth / 2
  const isUpper = clientY < clientHeight / 2
  tip.style.left = isLeft ? `${Math.max(0, clientX) + 12}px` : 'auto'
  tip.style.right = isLeft ? 'auto' : `${clientWidth - clientX + 12}px`
  tip.style.top = isUpper ? `${clientY + 12}px` : 'auto'
  tip.style.bottom = isUpper ? 'auto' : `${clientHeight - clientY + 12}px`
}
