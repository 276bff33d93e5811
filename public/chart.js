import uPlot from '/vendor/uplot.js'
import { element } from './element.js'
import { timeOfDay } from './format.js'

const HEIGHT = 200
const FONT = '12px system-ui, sans-serif'

const themes = [matchMedia('(prefers-color-scheme: dark)'), matchMedia('(forced-colors: active)')]
/** Of the theme: canvases ask for a colour with each bar. @type {Map<string, string>} */
const colours = new Map()
onThemeChange(() => colours.clear())

/**
 * @typedef {object} Line
 * @property {string} label
 * @property {string} colour a custom property of theme.css: `--chart-1`
 * @property {boolean} [area] filled down to zero
 */

/**
 * @typedef {object} TimeChartOptions
 * @property {string} label for screen readers
 * @property {Line[]} lines
 * @property {(value: number) => string} format of values, on the axis and in the legend
 * @property {number} windowMs the length of the past that is shown
 * @property {() => number} [now] the clock that its times are of; the browser's if absent
 * @property {number} [atLeast] the value axis reaches at least so far, so that noise does not look
 * like a mountain
 * @property {number} [height] in pixels
 * @property {boolean} [hasLegend] true if absent
 * @property {uPlot.Plugin[]} [plugins]
 */

/**
 * Draws lines over the last `windowMs`, in the colours of the theme, as wide as its container. The
 * legend below shows the newest values, or those under the pointer.
 *
 * `container.chart` is the uPlot instance.
 *
 * @param {HTMLElement & { chart?: uPlot }} container
 * @param {TimeChartOptions} options
 * @returns {(data: uPlot.AlignedData) => void} shows other data: milliseconds since the epoch, then
 * each line's values
 */
export function timeChart(
  container,
  {
    label,
    lines,
    format,
    windowMs,
    now = Date.now,
    atLeast = 0,
    height = HEIGHT,
    hasLegend = true,
    plugins = [],
  },
) {
  const canvas = element('div', { className: 'chart', role: 'img', 'aria-label': label })
  const figures = lines.map(() => element('b', {}, '–'))
  const legend = element('ul', { className: 'legend' })
  for (const [index, { label, colour }] of lines.entries()) {
    const key = element('i', { className: 'key' })
    key.style.setProperty('background', `var(${colour})`)
    legend.append(element('li', {}, key, `${label} `, figures[index]))
  }
  container.append(canvas, ...(hasLegend ? [legend] : []))

  const chart = new uPlot(
    {
      width: readWidth(canvas),
      height,
      ms: 1,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { range: () => [now() - windowMs, now()] },
        y: { range: (_, __, max) => [0, Math.max(atLeast, (max ?? 0) * 1.1)] },
      },
      axes: [
        axis({ size: 28, space: 80, values: (_, ticks) => ticks.map(timeOfDay) }),
        axis({ size: 60, space: 36, values: (_, ticks) => ticks.map((tick) => format(tick)) }),
      ],
      series: [
        {},
        ...lines.map(({ colour, area }) => ({
          stroke: () => themeColour(colour),
          fill: area
            ? () => `color-mix(in srgb, ${themeColour(colour)} 14%, transparent)`
            : undefined,
          width: 1.5,
          points: { show: false },
        })),
      ],
      plugins,
      hooks: { setCursor: [showFigures], setData: [showFigures] },
    },
    [[], ...lines.map(() => [])],
    canvas,
  )
  container.chart = chart

  /** @param {uPlot} chart */
  function showFigures(chart) {
    for (const [index, figure] of figures.entries()) {
      const values = chart.data[index + 1] ?? []
      const value = values[chart.cursor.idx ?? values.length - 1]
      figure.textContent = typeof value === 'number' ? format(value) : '–'
    }
  }

  new ResizeObserver(() => chart.setSize({ width: readWidth(canvas), height })).observe(canvas)
  onThemeChange(() => chart.redraw())
  return oncePerFrame((/** @type {uPlot.AlignedData} */ data) => chart.setData(data))
}

/**
 * The function calls `draw` in the next frame, with its last argument: once, however often it is
 * called until then, and not while the tab is hidden.
 *
 * @template Argument
 * @param {(argument: Argument) => void} draw
 * @returns {(argument: Argument) => void}
 */
export function oncePerFrame(draw) {
  let isPlanned = false
  /** @type {Argument} */
  let last
  return (argument) => {
    last = argument
    if (!isPlanned)
      requestAnimationFrame(() => {
        isPlanned = false
        draw(last)
      })
    isPlanned = true
  }
}

/**
 * The colour of a custom property such as `--chart-1`, for a canvas: the reader's own where they
 * force it.
 *
 * @param {string} name
 */
export function themeColour(name) {
  const known = colours.get(name)
  if (known) return known
  const swatch = element('i', { hidden: true })
  swatch.style.setProperty('color', `var(${name})`)
  swatch.style.setProperty('forced-color-adjust', 'none')
  document.body.append(swatch)
  const { color } = getComputedStyle(swatch)
  swatch.remove()
  colours.set(name, color)
  return color
}

/** @param {() => void} redraw a canvas does not follow the theme by itself */
export function onThemeChange(redraw) {
  for (const theme of themes) theme.addEventListener('change', redraw)
}
/** @param {Partial<uPlot.Axis>} options @returns {uPlot.Axis} */
const axis = (options) => ({
  font: FONT,
  stroke: () => themeColour('--muted'),
  grid: { stroke: () => themeColour('--line'), width: 1 },
  ticks: { show: false },
  gap: 6,
  ...options,
})

/** @param {HTMLElement} element uPlot cannot draw without a width */
const readWidth = ({ clientWidth }) => Math.max(clientWidth, 40)
