import { element } from '../../element.js'
import { duration } from '../../format.js'
import { KEPT_MS } from '../../processes.js'
import { serviceNow } from '../../samples.js'

const MIN_WIDTH_MS = 100
const FIRST_WIDTH_MS = 30_000
const ZOOM = 1.6
const STEP = 0.25

/** The visible part of the last ten minutes. It follows the present until it is paused or moved. */
export class Timeline {
  widthMs = FIRST_WIDTH_MS
  /** The right edge, or null while it follows the present. @type {number | null} */
  #end = null
  #onChange

  /** @param {() => void} onChange */
  constructor(onChange) {
    this.#onChange = onChange
  }

  get isLive() {
    return this.#end === null
  }

  get end() {
    return this.#end ?? serviceNow()
  }

  get start() {
    return this.end - this.widthMs
  }

  pause() {
    this.#end = this.end
    this.#onChange()
  }

  follow() {
    this.#end = null
    this.#onChange()
  }

  /** All that is kept, up to the present. */
  showAll() {
    this.widthMs = KEPT_MS
    this.follow()
  }

  /** Negative goes to the past; it stops at the present. @param {number} ms */
  move(ms) {
    const now = serviceNow()
    const end = Math.max(this.end + ms, Math.min(now, now - KEPT_MS + this.widthMs))
    this.#end = end >= now ? null : end
    this.#onChange()
  }

  /** Moves by a quarter of the width. @param {-1 | 1} direction */
  step(direction) {
    this.move(direction * this.widthMs * STEP)
  }

  /**
   * Keeps the time at `share` of the width in place: by default the middle, or the present.
   *
   * @param {-1 | 1} direction 1 shows less time
   */
  zoom(direction, share = this.isLive ? 1 : 0.5) {
    const fixed = this.start + this.widthMs * share
    this.widthMs = Math.min(KEPT_MS, Math.max(MIN_WIDTH_MS, this.widthMs / ZOOM ** direction))
    if (!this.isLive) this.#end = Math.min(serviceNow(), fixed + this.widthMs * (1 - share))
    this.#onChange()
  }
}

/** Keys while the timeline has the focus. @type {Record<string, (timeline: Timeline) => void>} */
const KEYS = {
  ArrowLeft: (timeline) => timeline.step(-1),
  ArrowRight: (timeline) => timeline.step(1),
  '+': (timeline) => timeline.zoom(1),
  '=': (timeline) => timeline.zoom(1),
  '-': (timeline) => timeline.zoom(-1),
  Home: (timeline) => timeline.showAll(),
  End: (timeline) => timeline.follow(),
  ' ': (timeline) => (timeline.isLive ? timeline.pause() : timeline.follow()),
}

/**
 * Lets keys, wheel and pointer move a timeline. The wheel zooms only with the focus or Ctrl, so that
 * it still scrolls the page.
 *
 * @param {HTMLElement} surface
 * @param {Timeline} timeline
 */
export function control(surface, timeline) {
  surface.addEventListener('keydown', (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : KEYS[event.key]
    if (!act) return
    event.preventDefault()
    act(timeline)
  })
  surface.addEventListener(
    'wheel',
    (event) => {
      const { ctrlKey, deltaX, deltaY, offsetX } = event
      if (!ctrlKey && document.activeElement !== surface) return
      event.preventDefault()
      if (Math.abs(deltaX) > Math.abs(deltaY))
        timeline.move((deltaX / surface.clientWidth) * timeline.widthMs)
      else timeline.zoom(deltaY < 0 ? 1 : -1, timeline.isLive ? 1 : offsetX / surface.clientWidth)
    },
    { passive: false },
  )
  surface.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return
    surface.setPointerCapture(event.pointerId)
    let from = event.clientX
    const drag = (/** @type {PointerEvent} */ { clientX }) => {
      if (clientX === from) return
      timeline.move(((from - clientX) / surface.clientWidth) * timeline.widthMs)
      from = clientX
    }
    surface.addEventListener('pointermove', drag)
    surface.addEventListener(
      'lostpointercapture',
      () => surface.removeEventListener('pointermove', drag),
      { once: true },
    )
  })
}

/** Buttons that move a timeline, and its width. @param {Timeline} timeline */
export function toolbar(timeline) {
  /** @param {string} text @param {string} label @param {() => void} onclick */
  const button = (text, label, onclick) =>
    element('button', { type: 'button', className: 'small', 'aria-label': label, onclick }, text)
  const pause = button('', '', () => (timeline.isLive ? timeline.pause() : timeline.follow()))
  const width = element('span', { className: 'aside' })
  const showState = () => {
    const text = timeline.isLive ? 'Pause' : 'Go live'
    pause.textContent = text
    pause.setAttribute('aria-label', `${text}: timeline of the threads`)
    width.textContent = duration(timeline.widthMs)
  }
  showState()
  const bar = element(
    'div',
    { className: 'row' },
    width,
    button('←', 'Earlier on the timeline', () => timeline.step(-1)),
    button('→', 'Later on the timeline', () => timeline.step(1)),
    button('−', 'Show more time', () => timeline.zoom(-1)),
    button('+', 'Show less time', () => timeline.zoom(1)),
    button('10 min', '10 min: the whole timeline of the threads', () => timeline.showAll()),
    pause,
  )
  return { bar, showState }
}
