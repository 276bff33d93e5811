import { themeColour, timeChart } from '../chart.js'
import { element, scrollRegion } from '../element.js'
import { duration, percent, timeOfDay } from '../format.js'
import { requestButton } from '../request-link.js'
import { onChosenSamples, serviceNow } from '../samples.js'

/** @typedef {import('../../src/ops/live-samples.ts').OpsSample} Sample */
/** @typedef {Sample['blocks'][number]} Block */

const CHART_MS = 120_000
const LIST_MS = 600_000
const MAX_LISTED = 50
/** Samples further apart have a gap in the line between them. */
const MAX_STEP_MS = 2_500
/** Less in a second is no reason to shade it. */
const MIN_WITHOUT_CORE_MS = 50
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
  /** @type {Sample[]} */
  let charted = []

  const busy = element('p', { className: 'aside' })
  const head = element('div', { className: 'toolbar' }, section.firstElementChild ?? '', busy)
  const hint = element(
    'p',
    { className: 'hint' },
    'Delay of the event loop in each second. Low and flat is good.',
  )
  const container = element('div')
  section.append(head, hint, container)

  const show = timeChart(container, {
    label: 'Event loop delay over the last two minutes, in milliseconds',
    lines: [
      { label: 'max', colour: '--chart-2' },
      { label: 'p99', colour: '--chart-1', area: true },
    ],
    format: duration,
    windowMs: CHART_MS,
    now: serviceNow,
    atLeast: 20,
    plugins: [
      withoutCore(() => charted),
      blockMarks(() => charted.flatMap(({ blocks }) => blocks)),
    ],
  })
  const showWithoutCore = withoutCoreLegend(container)
  const list = blockList(section)

  onChosenSamples(context, (samples, { name }) => {
    charted = samples.filter(({ at }) => at > serviceNow() - CHART_MS)
    const points = withGaps(charted)
    show([
      points.map(({ at }) => at),
      points.map(({ loop }) => loop?.max),
      points.map(({ loop }) => loop?.p99),
    ])
    const share = `${percent(samples.at(-1)?.loop.utilization)} busy`
    busy.textContent = name ? `${name} · ${share}` : share
    showWithoutCore(charted)
    list(samples.filter(({ at }) => at > serviceNow() - LIST_MS))
  })
}

/**
 * With a point that has no values wherever samples are missing.
 *
 * @param {Sample[]} samples
 * @returns {{ at: number, loop?: Sample['loop'] }[]}
 */
const withGaps = (samples) =>
  samples.flatMap((sample, index) => {
    const before = samples[index - 1]?.at ?? sample.at
    return sample.at - before > MAX_STEP_MS ? [{ at: before + 1 }, sample] : [sample]
  })

/**
 * Shades the seconds in which the event loop waited for a core, the darker the longer.
 *
 * @param {() => Sample[]} read
 * @returns {import('/vendor/uplot.js').Plugin}
 */
const withoutCore = (read) => ({
  hooks: {
    drawAxes(chart) {
      const { ctx, bbox } = chart
      ctx.save()
      for (const { at, loop } of read()) {
        if (loop.withoutCoreMs < MIN_WITHOUT_CORE_MS) continue
        const [from, to] = [at - 1_000, at].map((time) =>
          Math.max(bbox.left, Math.round(chart.valToPos(time, 'x', true))),
        )
        const share = Math.min(1, loop.withoutCoreMs / 1_000)
        ctx.fillStyle = shade(15 + 30 * share)
        ctx.fillRect(from, bbox.top, to - from, bbox.height)
      }
      ctx.restore()
    },
  },
})

/** @param {number} share in percent */
const shade = (share) => `color-mix(in srgb, ${themeColour('--muted')} ${share}%, transparent)`

/**
 * What the shading means, once there is some.
 *
 * @param {HTMLElement} container of the chart
 */
function withoutCoreLegend(container) {
  const key = element('i', { className: 'key without-core' })
  const figure = element('b')
  const entry = element('li', { hidden: true }, key, 'no core available ', figure)
  const hint = element(
    'p',
    { className: 'hint', hidden: true },
    'Shaded: other threads or programs had all cores, and the event loop had to wait for one. ' +
      'This is not counted as delay.',
  )
  container.querySelector('.legend')?.append(entry)
  container.append(hint)
  return (/** @type {Sample[]} */ samples) => {
    const hasShading = samples.some(({ loop }) => loop.withoutCoreMs >= MIN_WITHOUT_CORE_MS)
    entry.hidden = hint.hidden = !hasShading
    figure.textContent = duration(samples.at(-1)?.loop.withoutCoreMs)
  }
}

/**
 * The blocks, the newest first. It changes only when there is something new, so that it is not read
 * out every second.
 *
 * @param {HTMLElement} section
 */
function blockList(section) {
  const title = 'Blocks in the last ten minutes'
  const list = element('ul', { 'aria-live': 'polite' })
  const more = element('p', { className: 'hint' })
  const region = scrollRegion(title, list, more)
  region.classList.add('blocks')
  section.append(element('h3', {}, title), region)
  /** Undefined before the first samples. @type {string | undefined} */
  let shown
  return (/** @type {Sample[]} */ samples) => {
    const count = samples.reduce((sum, { loop }) => sum + loop.blockCount, 0)
    const newest = samples
      .flatMap(({ blocks }) => blocks)
      .slice(-MAX_LISTED)
      .toReversed()
    const keys = newest.map(keyOf)
    if (shown === [count, ...keys].join()) return
    shown = [count, ...keys].join()
    replaceRows(list, newest)
    const left = count - newest.length
    more.textContent = count === 0 ? 'None' : left > 0 ? `and ${left} more, not shown` : ''
  }
}

/** @param {Block} block */
const keyOf = ({ at, blockedMs }) => `${at} ${blockedMs}`

/** Rows that stay keep the focus. @param {HTMLElement} list @param {Block[]} blocks */
function replaceRows(list, blocks) {
  const rows = new Map([...list.children].map((row) => [/** @type {any} */ (row).dataset.key, row]))
  const focused = /** @type {HTMLElement} */ (document.activeElement)
  list.replaceChildren(...blocks.map((block) => rows.get(keyOf(block)) ?? describe(block)))
  if (list.contains(focused)) focused.focus({ preventScroll: true })
}

/** @param {Block} block */
function describe(block) {
  const { at, blockedMs, route, requestId } = block
  const row = element(
    'li',
    {},
    element('time', {}, timeOfDay(at)),
    element('b', {}, duration(blockedMs)),
    describeFrame(block),
    ...(route ? [element('span', { className: 'hint' }, route)] : []),
    ...(requestId ? [requestButton(requestId)] : []),
  )
  row.dataset.key = keyOf(block)
  return row
}

/** @param {Block} block */
const describeFrame = (block) =>
  block.function === undefined
    ? element('span', { className: 'hint', title: 'What ran is unknown' }, 'not sampled')
    : element('code', {}, formatFrame(block))

/** @param {Block} block */
function formatFrame({ function: name, file, line, inNativeCall }) {
  if (name === undefined) return 'something that was not sampled'
  return inNativeCall ? `${name} (${file}, at or before line ${line})` : `${name} (${file}:${line})`
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
