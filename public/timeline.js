import { serviceNow } from './samples.js'
import { KEPT_MS } from './spans.js'

const MIN_WIDTH_MS = 100
const FIRST_WIDTH_MS = 30_000
const ZOOM = 1.6
const STEP = 0.25

/**
 * Which part of the last ten minutes is on the screen: it follows the present, until it is paused
 * or moved.
 */
export class Timeline {
  widthMs = FIRST_WIDTH_MS
  /** The right edge, or null while it follows the present. @type {number | null} */
  #end = null
  #tell

  /** @param {() => void} tell of every change */
  constructor(tell) {
    this.#tell = tell
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
    this.#tell()
  }

  follow() {
    this.#end = null
    this.#tell()
  }

  /** To the past with a negative number; the present stops it. @param {number} ms */
  move(ms) {
    const now = serviceNow()
    const end = Math.max(this.end + ms, Math.min(now, now - KEPT_MS + this.widthMs))
    this.#end = end >= now ? null : end
    this.#tell()
  }

  /** By a part of what is shown. @param {-1 | 1} direction */
  step(direction) {
    this.move(direction * this.widthMs * STEP)
  }

  /**
   * What is at `share` of the width, from 0 to 1, stays there; the present stays at the right edge
   * while it is followed.
   *
   * @param {-1 | 1} direction 1 shows less time
   */
  zoom(direction, share = this.isLive ? 1 : 0.5) {
    const fixed = this.start + this.widthMs * share
    this.widthMs = Math.min(KEPT_MS, Math.max(MIN_WIDTH_MS, this.widthMs / ZOOM ** direction))
    if (!this.isLive) this.#end = Math.min(serviceNow(), fixed + this.widthMs * (1 - share))
    this.#tell()
  }
}

/**
 * What the keys do while the timeline has the focus. @type {Record<string, (timeline: Timeline) =>
 * void>}
 */
const KEYS = {
  ArrowLeft: (timeline) => timeline.step(-1),
  ArrowRight: (timeline) => timeline.step(1),
  '+': (timeline) => timeline.zoom(1),
  '=': (timeline) => timeline.zoom(1),
  '-': (timeline) => timeline.zoom(-1),
  End: (timeline) => timeline.follow(),
  ' ': (timeline) => (timeline.isLive ? timeline.pause() : timeline.follow()),
}

/**
 * Lets keys, wheel and pointer move a timeline. The wheel zooms once the surface has the focus, or
 * with Ctrl: a page that is scrolled past it must not stop there.
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
