import { themeColour, timeChart } from '../chart.js'
import { element } from '../element.js'
import { duration, percent, timeOfDay } from '../format.js'
import { onSamples, serviceNow } from '../samples.js'

/** @typedef {import('../../src/ops/live-samples.ts').OpsSample['blocks'][number]} Block */

const WINDOW_MS = 120_000
const MAX_LISTED = 5
/** Distance of the pointer from a mark, in pixels, at which its tip is shown. */
const REACH = 8

/**
 * The delay of the event loop, second by second, and what blocked it.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'Event loop', order: 21, access: 'operate', width: 'narrow', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, context) {
  /** @type {Block[]} */
  let blocks = []

  const busy = element('p', { className: 'aside' })
  const head = element('div', { className: 'toolbar' }, section.firstElementChild ?? '', busy)
  const hint = element(
    'p',
    { className: 'hint' },
    'Delay of the event loop in each second. Low and flat is good.',
  )
  const container = element('div')
  const list = element('div', { className: 'blocks', 'aria-live': 'polite' })
  section.append(head, hint, container, list)

  const show = timeChart(container, {
    label: 'Event loop delay over the last two minutes, in milliseconds',
    lines: [
      { label: 'max', colour: '--chart-2' },
      { label: 'p99', colour: '--chart-1', area: true },
    ],
    format: duration,
    windowMs: WINDOW_MS,
    now: serviceNow,
    atLeast: 20,
    plugins: [blockMarks(() => blocks)],
  })

  onSamples(context, (samples) => {
    blocks = samples.flatMap((sample) => sample.blocks)
    show([
      samples.map(({ at }) => at),
      samples.map(({ loop }) => loop.max),
      samples.map(({ loop }) => loop.p99),
    ])
    busy.textContent = `${percent(samples.at(-1)?.loop.utilization)} busy`
    listBlocks(list, blocks)
  })
}

/**
 * The newest first; the list changes only when there is something new, so that it is not read out
 * every second.
 */
function listBlocks(/** @type {HTMLElement} */ list, /** @type {Block[]} */ blocks) {
  const newest = blocks.toReversed().slice(0, MAX_LISTED)
  const key = newest.map(({ at }) => at).join()
  if (list.dataset.key === key) return
  list.dataset.key = key
  if (newest.length === 0) return list.replaceChildren()
  list.replaceChildren(
    element('h3', {}, 'Blocked by'),
    element('ul', {}, ...newest.map((block) => element('li', {}, ...describe(block)))),
  )
}

/** @param {Block} block */
const describe = (block) => [
  element('time', {}, timeOfDay(block.at)),
  element('b', {}, duration(block.blockedMs)),
  element('code', {}, formatFrame(block)),
  element(
    'span',
    { className: 'hint' },
    [block.route, block.requestId].filter(Boolean).join(' · '),
  ),
]

/** Function, file and line, as far as they are known. @param {Block} block */
function formatFrame({ function: name, file, line, inNativeCall }) {
  if (!file) return name
  return inNativeCall ? `${name} ${file}, at or before line ${line}` : `${name} ${file}:${line}`
}

/**
 * A line through the chart at each block, with the function's name when the pointer is near.
 *
 * @param {() => Block[]} read
 * @returns {import('/vendor/uplot.js').Plugin}
 */
function blockMarks(read) {
  const tip = element('p', { className: 'tip', hidden: true })
  return {
    hooks: {
      init: (chart) => void chart.over.append(tip),
      draw(chart) {
        const { ctx, bbox } = chart
        ctx.save()
        ctx.strokeStyle = themeColour('--bad')
        ctx.fillStyle = themeColour('--bad')
        ctx.lineWidth = devicePixelRatio
        ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio])
        for (const { at } of read()) {
          const x = Math.round(chart.valToPos(at, 'x', true))
          if (x < bbox.left) continue
          ctx.beginPath()
          ctx.moveTo(x, bbox.top)
          ctx.lineTo(x, bbox.top + bbox.height)
          ctx.stroke()
          ctx.beginPath()
          ctx.arc(x, bbox.top, 4 * devicePixelRatio, 0, 2 * Math.PI)
          ctx.fill()
        }
        ctx.restore()
      },
      setCursor(chart) {
        const { left = -1 } = chart.cursor
        const near = read().find(
          ({ at }) => left >= 0 && Math.abs(chart.valToPos(at, 'x') - left) < REACH,
        )
        tip.hidden = !near
        if (!near) return
        tip.textContent = `Blocked ${duration(near.blockedMs)} by ${formatFrame(near)}`
        placeTip(tip, chart.valToPos(near.at, 'x'), chart.over.clientWidth)
      },
    },
  }
}

/** Beside a point, on the side where there is room. */
function placeTip(
  /** @type {HTMLElement} */ tip,
  /** @type {number} */ x,
  /** @type {number} */ width,
) {
  tip.style.left = x < width / 2 ? `${x + 8}px` : 'auto'
  tip.style.right = x < width / 2 ? 'auto' : `${width - x + 8}px`
}
