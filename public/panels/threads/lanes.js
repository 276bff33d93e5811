import { themeColour } from '../../chart.js'
import { timeOfDay } from '../../format.js'
import { firstEndingAfter } from './spans.js'

/** @typedef {import('../../../src/ops/live-spans.ts').TaskSpan} Span */
/** @typedef {import('../../../src/ops/live-samples.ts').OpsSample} Sample */

export const AXIS_HEIGHT = 22
export const QUEUE_HEIGHT = 44
const PADDING = 3
const COLOURS = 8
/** Maximum lines of the time axis, and the intervals between them. */
const MAX_TICKS = 8
const TICKS_MS = [
  10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000,
]
const FONT = '11px system-ui, sans-serif'

/**
 * @typedef {object} Scene
 * @property {Map<string, Span[]>} lanes
 * @property {number} laneHeight
 * @property {Sample[]} samples for the queue's depth
 * @property {{ from: number, to: number }[]} gaps when the page was not subscribed
 * @property {number} start of the visible time
 * @property {number} end
 * @property {Span | undefined} chosen
 */

/** The same colour for a task every time, by its name. @param {string} task */
export function pickColour(task) {
  let hash = 0
  for (const character of task) hash = (hash * 5 + character.charCodeAt(0)) | 0
  return `--task-${(Math.abs(hash) % COLOURS) + 1}`
}

/**
 * @param {HTMLCanvasElement} canvas drawn in the size in which it is shown
 * @param {Scene} scene
 */
export function drawLanes(canvas, scene) {
  const context = canvas.getContext('2d')
  if (!context) return
  const [width, height] = [canvas.clientWidth, canvas.clientHeight]
  const ratio = devicePixelRatio
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio)
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio)
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  context.clearRect(0, 0, width, height)
  const toX = (/** @type {number} */ time) =>
    ((time - scene.start) / (scene.end - scene.start)) * width

  drawGaps(context, scene, toX, height - AXIS_HEIGHT)
  drawTime(context, scene, toX, height)
  const brush = { context, width, toX }
  let top = 0
  for (const spans of scene.lanes.values()) {
    drawLane(brush, scene, spans, top)
    top += scene.laneHeight
  }
  drawQueue(brush, scene, top)
}

/**
 * @param {{ context: CanvasRenderingContext2D, width: number, toX: (time: number) => number
 * }} brush
 * @param {Scene} scene
 * @param {Span[]} spans
 * @param {number} top
 */
function drawLane({ context, width, toX }, { start, end, laneHeight, chosen }, spans, top) {
  context.fillStyle = themeColour('--line')
  context.fillRect(0, top + laneHeight - 1, width, 1)
  const bad = themeColour('--bad')
  const ink = themeColour('--ink')
  /** @type {Map<string, string>} */
  const colours = new Map()
  // The right end of the last bar: further spans on the same pixel are skipped.
  let drawn = -1
  for (let index = firstEndingAfter(spans, start); index < spans.length; index++) {
    const span = spans[index]
    if (span.startedAt > end) break
    const left = toX(span.startedAt)
    const right = Math.max(toX(span.endedAt), left + 1)
    if (right <= drawn && span.outcome === 'succeeded') continue
    const colour = colours.get(span.task) ?? themeColour(pickColour(span.task))
    colours.set(span.task, colour)
    // A pixel between neighbours, where there is room for it.
    const bar = right - left > 4 ? right - left - 1 : right - left
    context.globalAlpha =
      span.count === 1
        ? 1
        : Math.max(0.35, Math.min(1, span.runMs / (span.endedAt - span.startedAt || 1)))
    context.fillStyle = colour
    context.fillRect(left, top + PADDING, bar, laneHeight - 2 * PADDING - 1)
    context.globalAlpha = 1
    if (span.outcome !== 'succeeded') {
      context.fillStyle = bad
      context.fillRect(left, top + laneHeight - PADDING - 5, Math.max(bar, 2), 4)
    }
    if (span === chosen) {
      context.strokeStyle = ink
      context.lineWidth = 1.5
      context.strokeRect(left, top + PADDING, bar, laneHeight - 2 * PADDING - 1)
    }
    drawn = right
  }
}

/**
 * The number of queued tasks, as steps.
 *
 * @param {{ context: CanvasRenderingContext2D, width: number, toX: (time: number) => number
 * }} brush
 * @param {Scene} scene
 * @param {number} top
 */
function drawQueue({ context, width, toX }, { samples }, top) {
  const most = Math.max(4, ...samples.map(({ compute }) => compute.queued))
  const bottom = top + QUEUE_HEIGHT - 1
  context.fillStyle = themeColour('--line')
  context.fillRect(0, bottom, width, 1)
  context.fillStyle = themeColour('--chart-3')
  context.globalAlpha = 0.55
  for (const [index, { at, compute }] of samples.entries()) {
    if (compute.queued === 0) continue
    const from = toX(samples[index - 1]?.at ?? at - 1_000)
    const height = (compute.queued / most) * (QUEUE_HEIGHT - 8)
    context.fillRect(from, bottom - height, Math.max(1, toX(at) - from), height)
  }
  context.globalAlpha = 1
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 * @param {(time: number) => number} toX
 * @param {number} height
 */
function drawGaps(context, { gaps, start, end }, toX, height) {
  context.fillStyle = themeColour('--raised')
  for (const { from, to } of gaps) {
    if (to < start || from > end) continue
    const left = Math.max(0, toX(from))
    context.fillRect(left, 0, toX(Math.min(to, end)) - left, height)
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 * @param {(time: number) => number} toX
 * @param {number} height
 */
function drawTime(context, { start, end }, toX, height) {
  const most = Math.max(2, Math.min(MAX_TICKS, Math.floor(context.canvas.clientWidth / 90)))
  const every = TICKS_MS.find((ms) => (end - start) / ms <= most) ?? 120_000
  context.font = FONT
  context.textAlign = 'center'
  const [line, muted] = [themeColour('--line'), themeColour('--muted')]
  for (let time = Math.ceil(start / every) * every; time < end; time += every) {
    const x = Math.round(toX(time))
    context.fillStyle = line
    context.fillRect(x, 0, 1, height - AXIS_HEIGHT)
    context.fillStyle = muted
    if (x > 28 && x < context.canvas.clientWidth - 28)
      context.fillText(formatTick(time, every), x, height - 6)
  }
}

/** @param {number} time @param {number} every */
const formatTick = (time, every) =>
  every >= 1_000
    ? timeOfDay(time)
    : `${timeOfDay(time).slice(3)}.${String(time % 1_000).padStart(3, '0')}`
