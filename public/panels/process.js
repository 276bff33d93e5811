import { oncePerFrame, onThemeChange, themeColour } from '../chart.js'
import { element } from '../element.js'
import { bytes, duration, number } from '../format.js'
import { onChosenSamples } from '../samples.js'

/** @typedef {import('../../src/ops/live-samples.ts').OpsSample} Sample */

const MAX_SAMPLES = 120
const SPARK_HEIGHT = 28

/**
 * The label of each number, its text, and its value for the line below, if it has one.
 *
 * @type {{ label: string, text: (sample: Sample) => string, value?: (sample: Sample) => number }[]}
 */
const FIGURES = [
  {
    label: 'Requests per second',
    text: ({ http }) => number(http.requestsPerSecond),
    value: ({ http }) => http.requestsPerSecond,
  },
  { label: 'CPU, in cores', text: ({ cpu }) => number(cpu), value: ({ cpu }) => cpu },
  {
    label: 'Memory (RSS)',
    text: ({ memory }) => bytes(memory.rss),
    value: ({ memory }) => memory.rss,
  },
  {
    label: 'Heap in use',
    text: ({ memory }) => bytes(memory.heapUsed),
    value: ({ memory }) => memory.heapUsed,
  },
  {
    label: 'Outside the heap',
    text: ({ memory }) => bytes(memory.external),
    value: ({ memory }) => memory.external,
  },
  {
    label: 'Connections in use',
    text: ({ database }) => `${database.inUse} of ${database.size}`,
    value: ({ database }) => database.inUse,
  },
  {
    label: 'Waiting for a connection',
    text: ({ database }) => number(database.waiting),
    value: ({ database }) => database.waiting,
  },
  { label: 'Sockets', text: ({ sockets }) => number(sockets), value: ({ sockets }) => sockets },
]

/**
 * Numbers of the database pool and the process, with their last two minutes as lines.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = {
  title: 'Process and database pool',
  order: 70,
  access: 'operate',
  width: 'full',
  mount,
}

/** @type {import('../live.js').Panel['mount']} */
function mount(section, context) {
  /** @type {Sample[]} */
  let samples = []
  /** @type {string[]} */
  let known = []
  let process = ''
  const line = element('p', { className: 'hint' })
  const rows = FIGURES.map((figure) => ({
    ...figure,
    shown: element('dd', {}, '–'),
    spark: element('canvas'),
  }))
  const list = element('dl', { className: 'figures' })
  for (const { label, shown, spark } of rows) {
    spark.setAttribute('aria-hidden', 'true')
    list.append(element('div', {}, element('dt', {}, label), shown, spark))
  }
  section.append(list, line)
  const draw = oncePerFrame(() => {
    const newest = samples.at(-1)
    if (!newest) return
    const facts = [`Up for ${duration(newest.uptime)}`, ...known]
    line.textContent = (process ? [process, ...facts] : facts).join(' · ')
    for (const { text, value, shown, spark } of rows) {
      shown.textContent = text(newest)
      if (value) drawSpark(spark, samples.slice(-MAX_SAMPLES).map(value))
    }
  })

  onChosenSamples(context, (past, { name, versions }) => {
    samples = past
    process = name
    known = versions
      ? [`Node ${versions.node}`, `V8 ${versions.v8}`, `database ${versions.database}`]
      : []
    draw(undefined)
  })
  onThemeChange(() => draw(undefined))
  new ResizeObserver(() => draw(undefined)).observe(list)
}

/** A line without axes, from zero up: its right end is now. */
function drawSpark(/** @type {HTMLCanvasElement} */ canvas, /** @type {number[]} */ values) {
  const [width, height] = [canvas.clientWidth * devicePixelRatio, SPARK_HEIGHT * devicePixelRatio]
  if (canvas.width !== width) canvas.width = width
  if (canvas.height !== height) canvas.height = height
  const context = canvas.getContext('2d')
  if (!context) return
  context.clearRect(0, 0, width, height)
  const top = Math.max(...values) || 1
  const line = devicePixelRatio * 1.5
  context.beginPath()
  for (const [index, value] of values.entries())
    context.lineTo(
      width - ((values.length - 1 - index) * width) / (MAX_SAMPLES - 1),
      height - line - (value / top) * (height - 2 * line),
    )
  context.strokeStyle = themeColour('--chart-1')
  context.lineWidth = line
  context.lineJoin = 'round'
  context.stroke()
}
