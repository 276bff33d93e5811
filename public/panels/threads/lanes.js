import { themeColour } from '../../chart.js'
import { element } from '../../element.js'
import { number, timeOfDay } from '../../format.js'
import { serviceNow } from '../../samples.js'
import { LOOP, pickColour, toSteps, toTip } from './bars.js'
import { firstEndingAfter } from './spans.js'

/** @typedef {import('./bars.js').Bar} Bar */
/** @typedef {import('../../../src/ops/live-samples.ts').OpsSample} Sample */

/**
 * @typedef {object} Lane
 * @property {string} name
 * @property {string} note beside the name
 * @property {Bar[]} bars by time
 * @property {Bar | undefined} open what runs
 */

/**
 * The lanes of a process.
 *
 * @typedef {object} Group
 * @property {(Node | string)[]} [title] above them
 * @property {string} id of the process
 * @property {string} name of the process, empty if there is no other
 * @property {Lane[]} lanes
 * @property {Sample[]} samples for the queue's depth
 * @property {{ from: number, to: number }[]} gaps without data
 */

/**
 * What has a name at the left, from top to bottom: a title, a lane, or the depth of a queue.
 *
 * @typedef {object} Row
 * @property {Group} group
 * @property {Lane} [lane]
 * @property {'title' | 'lane' | 'queue'} kind
 * @property {number} top
 * @property {number} height
 */

const LANE_HEIGHT = 36
/** With many threads. */
const LOW_LANE_HEIGHT = 20
const MANY_LANES = 12
const AXIS_HEIGHT = 22
const QUEUE_HEIGHT = 44
const TITLE_HEIGHT = 36
const PADDING = 4
/** Maximum lines of the time axis, and the intervals between them. */
const MAX_TICKS = 8
const TICKS_MS = [
  10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000,
]
const FONT = '11px system-ui, sans-serif'
const MIN_LABEL_WIDTH = 40
/** Distance of the pointer from a bar, in pixels, at which its tip is shown. */
const REACH = 2

/** The lanes of a timeline: their names, a canvas, and a tip for the bar under the pointer. */
export class Lanes {
  #canvas = element('canvas', { 'aria-hidden': 'true' })
  #tip = element('div', { className: 'tip', hidden: true })
  #names = element('ul', { className: 'lane-names' })
  surface = element(
    'div',
    { className: 'lane-surface', tabIndex: 0, role: 'group' },
    this.#canvas,
    this.#tip,
  )
  element = element('div', { className: 'lanes' }, this.#names, this.surface)
  /** @type {Row[]} */
  #rows = []
  /** @type {Bar | undefined} */
  #chosen
  #timeline
  #onChange

  /**
   * @param {import('./timeline.js').Timeline} timeline
   * @param {() => void} onChange when it should be drawn again
   */
  constructor(timeline, onChange) {
    this.#timeline = timeline
    this.#onChange = onChange
    this.element.addEventListener('scroll', onChange)
    const point = (/** @type {PointerEvent} */ event) => this.#point(event)
    this.surface.addEventListener('pointermove', point)
    this.surface.addEventListener('pointerdown', point)
    this.surface.addEventListener('pointerleave', ({ pointerType }) => {
      // A finger covers its tip.
      if (pointerType !== 'touch') this.#choose(undefined)
    })
  }

  /** @param {Group[]} groups */
  show(groups) {
    const count = groups.reduce((sum, { lanes }) => sum + lanes.length, 0)
    const laneHeight = count > MANY_LANES ? LOW_LANE_HEIGHT : LANE_HEIGHT
    this.#names.style.setProperty('--lane', `${laneHeight}px`)
    this.#rows = []
    let top = 0
    const add = (/** @type {Omit<Row, 'top'>} */ row) => {
      this.#rows.push({ ...row, top })
      top += row.height
    }
    for (const group of groups) {
      if (group.title) add({ kind: 'title', group, height: TITLE_HEIGHT })
      for (const lane of group.lanes) add({ kind: 'lane', group, lane, height: laneHeight })
      add({ kind: 'queue', group, height: QUEUE_HEIGHT })
    }
    this.#names.replaceChildren(...this.#rows.map(toName))
    this.#canvas.style.height = `${top + AXIS_HEIGHT}px`
    this.#onChange()
  }

  /** In the size in which the canvas is shown. */
  draw() {
    const context = this.#canvas.getContext('2d')
    if (!context) return
    const { clientWidth: width, clientHeight: height } = this.#canvas
    const ratio = devicePixelRatio
    if (this.#canvas.width !== Math.round(width * ratio))
      this.#canvas.width = Math.round(width * ratio)
    if (this.#canvas.height !== Math.round(height * ratio))
      this.#canvas.height = Math.round(height * ratio)
    context.setTransform(ratio, 0, 0, ratio, 0, 0)
    context.font = FONT
    const { start, end } = this.#timeline
    /** @type {View} */
    const view = {
      context,
      width,
      height,
      start,
      end,
      now: serviceNow(),
      toX: (time) => ((time - start) / (end - start)) * width,
    }
    // What is scrolled out of view is drawn when it is not.
    const { scrollTop, clientHeight } = this.element
    context.save()
    context.beginPath()
    context.rect(0, scrollTop, width, clientHeight)
    context.clip()
    context.clearRect(0, scrollTop, width, clientHeight)
    const rows = this.#rows.filter(
      ({ top, height }) => top < scrollTop + clientHeight && top + height > scrollTop,
    )
    for (const row of rows) if (row.kind !== 'title') drawGaps(view, row)
    drawTime(view)
    for (const { kind, group, lane, top, height } of rows) {
      if (lane) drawLane(view, lane, { top, height, chosen: this.#chosen })
      if (kind === 'queue') drawQueue(view, group.samples, top)
      if (kind === 'title') context.clearRect(0, top, width, height)
    }
    context.restore()
  }

  /** Chooses the bar under the pointer. @param {PointerEvent} event */
  #point({ offsetX, offsetY, clientX, clientY }) {
    const { start, widthMs } = this.#timeline
    const { clientWidth } = this.surface
    const time = start + (offsetX / clientWidth) * widthMs
    const reach = (REACH / clientWidth) * widthMs
    const row = this.#rows.find(({ top, height }) => offsetY >= top && offsetY < top + height)
    const lane = row?.lane
    const ended = lane?.bars[firstEndingAfter(lane.bars, time - reach)]
    const bar = [ended, lane?.open].find((bar) => bar && bar.startedAt <= time + reach)
    const isShown = bar && time - reach <= Math.max(bar.startedAt, serviceNow())
    this.#choose(isShown ? bar : undefined, row?.group.name)
    const isLeft = offsetX < clientWidth / 2
    this.#tip.style.left = isLeft ? `${clientX + 12}px` : 'auto'
    this.#tip.style.right = isLeft
      ? 'auto'
      : `${document.documentElement.clientWidth - clientX + 12}px`
    this.#tip.style.top = `${clientY + 12}px`
  }

  /** @param {Bar | undefined} bar @param {string} [process] its name */
  #choose(bar, process = '') {
    this.#tip.hidden = !bar
    if (bar) this.#tip.replaceChildren(...toTip(bar, serviceNow(), process))
    if (bar === this.#chosen) return
    this.#chosen = bar
    this.#onChange()
  }
}

/** @param {Row} row */
function toName({ kind, group, lane }) {
  if (group.title && kind === 'title')
    return element('li', { className: kind, 'data-process': group.id }, ...group.title)
  const [name, note] = lane
    ? [lane.name, lane.note]
    : ['queue', number(group.samples.at(-1)?.compute.queued)]
  return element('li', { className: kind }, name, ' ', element('small', {}, note))
}

/**
 * @typedef {object} View
 * @property {CanvasRenderingContext2D} context
 * @property {number} width
 * @property {number} height
 * @property {number} start of the visible time
 * @property {number} end
 * @property {number} now
 * @property {(time: number) => number} toX
 */

/**
 * @param {View} view
 * @param {Lane} lane
 * @param {{ top: number, height: number, chosen: Bar | undefined }} place
 */
function drawLane(view, { name, bars, open }, { top, height, chosen }) {
  const { context, start, end, toX, width } = view
  context.fillStyle = themeColour('--line')
  context.fillRect(0, top + height - 1, width, 1)
  const box = { top: top + PADDING, height: height - 2 * PADDING - 1 }
  /** @type {Map<string, string>} */
  const colours = new Map()
  const findColour = (/** @type {string | undefined} */ task) => {
    const property = name === LOOP || task === undefined ? '--bad' : pickColour(task)
    const colour = colours.get(property) ?? themeColour(property)
    colours.set(property, colour)
    return colour
  }
  // The right end of the last bar: further ones on the same pixel are skipped.
  let drawn = -1
  for (let index = firstEndingAfter(bars, start); index < bars.length; index++) {
    const bar = bars[index]
    if (bar.startedAt > end) break
    const left = toX(bar.startedAt)
    const right = Math.max(toX(bar.endedAt), left + (bar.block ? 2 : 1))
    const isBad = bar.outcome !== undefined && bar.outcome !== 'succeeded'
    if (right <= drawn && !isBad) continue
    // A pixel between neighbours, where there is room for it.
    const length = right - left > 4 ? right - left - 1 : right - left
    const busy = (bar.runMs ?? 0) / (bar.endedAt - bar.startedAt || 1)
    context.globalAlpha = bar.count === 1 ? 1 : Math.max(0.35, Math.min(1, busy))
    context.fillStyle = findColour(bar.task)
    context.fillRect(left, box.top, length, box.height)
    context.globalAlpha = 1
    if (bar.count === 1) drawLabel(view, bar.task, { left, length, ...box }, '--panel')
    if (isBad) {
      context.fillStyle = themeColour('--bad')
      context.fillRect(left, box.top + box.height - 4, Math.max(length, 2), 4)
    }
    if (bar === chosen) drawOutline(view, { left, length, ...box })
    drawn = right
  }
  if (open && open.startedAt <= end) drawOpen(view, open, box, findColour(open.task))
}

/**
 * A pale bar up to now, as far as its progress is known a full one, with an edge at its open end.
 *
 * @param {View} view
 * @param {Bar} bar
 * @param {{ top: number, height: number }} box
 * @param {string} colour
 */
function drawOpen(view, bar, { top, height }, colour) {
  const { context, end, now, toX } = view
  const left = toX(bar.startedAt)
  const length = Math.max(toX(Math.min(now, end)) - left, 2)
  context.fillStyle = colour
  context.globalAlpha = 0.45
  context.fillRect(left, top, length, height)
  context.globalAlpha = 1
  if (bar.progress) context.fillRect(left, top + height - 6, length * bar.progress, 6)
  context.fillStyle = themeColour('--ink')
  context.fillRect(left + length - 2, top - 2, 2, height + 4)
  drawLabel(view, bar.task, { left, length, top, height }, '--ink')
}

/**
 * @param {View} view
 * @param {string | undefined} text
 * @param {{ left: number, length: number, top: number, height: number }} box
 * @param {string} colour
 */
function drawLabel({ context }, text, { left, length, top, height }, colour) {
  const from = Math.max(left, 0) + 6
  const room = left + length - 6 - from
  if (text === undefined || room < MIN_LABEL_WIDTH || context.measureText(text).width > room) return
  context.fillStyle = themeColour(colour)
  context.textAlign = 'left'
  context.fillText(text, from, top + height / 2 + 4)
}

/**
 * @param {View} view
 * @param {{ left: number, length: number, top: number, height: number }} box
 */
function drawOutline({ context }, { left, length, top, height }) {
  context.strokeStyle = themeColour('--ink')
  context.lineWidth = 1.5
  context.strokeRect(left, top, length, height)
}

/**
 * The number of queued tasks as steps, interrupted where samples are missing.
 *
 * @param {View} view
 * @param {Sample[]} samples each of the time since the one before
 * @param {number} top
 */
function drawQueue({ context, width, start, end, toX }, samples, top) {
  const steps = toSteps(samples).filter(({ to, from }) => to > start && from < end)
  const most = Math.max(4, ...steps.map(({ queued }) => queued))
  const bottom = top + QUEUE_HEIGHT - 1
  context.fillStyle = themeColour('--line')
  context.fillRect(0, bottom, width, 1)
  const colour = themeColour('--chart-3')
  context.fillStyle = colour
  context.strokeStyle = colour
  context.lineWidth = 1.5
  context.beginPath()
  for (const [index, { from, to, queued }] of steps.entries()) {
    const y = bottom - 1 - (queued / most) * (QUEUE_HEIGHT - 10)
    if (steps[index - 1]?.to === from) context.lineTo(toX(from), y)
    else context.moveTo(toX(from), y)
    context.lineTo(toX(to), y)
    context.globalAlpha = 0.25
    context.fillRect(toX(from), y, toX(to) - toX(from), bottom - y)
    context.globalAlpha = 1
  }
  context.stroke()
}

/** @param {View} view @param {Row} row */
function drawGaps({ context, start, end, toX }, { group, top, height }) {
  context.fillStyle = themeColour('--raised')
  for (const { from, to } of group.gaps) {
    if (to < start || from > end) continue
    const left = Math.max(0, toX(from))
    context.fillRect(left, top, toX(Math.min(to, end)) - left, height)
  }
}

/** @param {View} view */
function drawTime({ context, width, height, start, end, toX }) {
  const most = Math.max(2, Math.min(MAX_TICKS, Math.floor(width / 90)))
  const every = TICKS_MS.find((ms) => (end - start) / ms <= most) ?? 120_000
  context.textAlign = 'center'
  const [line, muted] = [themeColour('--line'), themeColour('--muted')]
  for (let time = Math.ceil(start / every) * every; time < end; time += every) {
    const x = Math.round(toX(time))
    context.fillStyle = line
    context.fillRect(x, 0, 1, height - AXIS_HEIGHT)
    context.fillStyle = muted
    if (x > 28 && x < width - 28) context.fillText(formatTick(time, every), x, height - 6)
  }
}

/** @param {number} time @param {number} every */
const formatTick = (time, every) =>
  every >= 1_000
    ? timeOfDay(time)
    : `${timeOfDay(time).slice(3)}.${String(time % 1_000).padStart(3, '0')}`
