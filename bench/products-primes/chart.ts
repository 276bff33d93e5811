import { machine } from '../support/machine.ts'
import type { LightFigures } from './light.bench.ts'

/** A share of the requests, and the latency that it stays below. */
export type CurvePoint = [share: number, ms: number]

const WIDTH = 900
const HEIGHT = 460
const PLOT = { left: 72, right: 640, top: 92, bottom: 396 }
const LINE_HEIGHT = 17
/** A curve's name and, below it, two lines of figures. */
const LABEL_HEIGHT = 58

const INK = '#1f2328'
const FAINT = '#59636e'
const GRID = '#d8dee4'
const CURVES = [
  { phase: 'inline', name: 'Inline, on the event loop', colour: '#cf222e' },
  { phase: 'offloaded', name: 'Offloaded to worker threads', colour: '#1a7f37' },
  { phase: 'idle', name: 'Idle: no heavy requests', colour: '#0969da' },
]
/** On the x axis, each tenth of what is left above is as long as the one before. */
const TICK_SHARES = [0.5, 0.9, 0.99, 0.999]

/**
 * The latency of the light endpoint by percentile, as an SVG: both axes logarithmic, the curves
 * labelled where they end. It paints its own background, to read the same on light and dark pages.
 */
export function drawChart({ versions, settings, responsiveness }: LightFigures): string {
  const { lightPerSecond, heavyConnections } = settings.responsiveness
  const curves = CURVES.flatMap((curve) =>
    responsiveness.phases
      .filter(({ phase }) => phase === curve.phase)
      .map((phase) => ({ ...curve, ...phase })),
  )
  const latenciesMs = curves.flatMap(({ curve }) => curve.map(([, ms]) => ms))
  const from = Math.floor(Math.log10(Math.min(...latenciesMs)))
  const to = Math.ceil(Math.log10(Math.max(...latenciesMs)))
  const toX = (share: number) => {
    const along = Math.log10(1 - share) / Math.log10(1 - (TICK_SHARES.at(-1) ?? 0))
    return PLOT.left + along * (PLOT.right - PLOT.left)
  }
  const toY = (ms: number) =>
    PLOT.bottom - ((Math.log10(ms) - from) / (to - from)) * (PLOT.bottom - PLOT.top)
  const decades = Array.from({ length: to - from + 1 }, (_, index) => 10 ** (from + index))
  const description = curves.map(({ name, p99Ms }) => `${name} ${formatMs(p99Ms)}`).join('; ')

  let labelY = PLOT.top
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img"`,
    `  aria-label="Latency, 99th percentile: ${description}" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="13">`,
    `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="6" fill="#ffffff" stroke="${GRID}"/>`,
    text(24, 34, 'A light endpoint while every core counts primes', 'font-size="18"'),
    text(
      24,
      56,
      `GET /v1/products/{id} from MySQL at ${lightPerSecond} requests/s, while ${heavyConnections} clients ask for the primes below 1 400 000`,
    ),
    text(
      24,
      75,
      `${machine.cpu}, ${machine.cores} cores for service, database and clients · Node ${process.version} · ${versions.database} · ${new Date().toISOString().slice(0, 10)}`,
    ),
    ...TICK_SHARES.flatMap((share) => [
      rule(toX(share), PLOT.top, toX(share), PLOT.bottom),
      text(toX(share), PLOT.bottom + 18, `${share * 100} %`, 'text-anchor="middle"'),
    ]),
    text(
      (PLOT.left + PLOT.right) / 2,
      PLOT.bottom + 42,
      'of the requests were answered within',
      'text-anchor="middle"',
    ),
    ...decades.flatMap((ms) => [
      rule(PLOT.left, toY(ms), PLOT.right, toY(ms)),
      text(PLOT.left - 10, toY(ms) + 4, formatMs(ms), 'text-anchor="end"'),
    ]),
    ...curves.flatMap(({ curve, name, colour, p50Ms, p99Ms, heavyPerSecond }) => {
      const points = curve.map(([share, ms]) => `${toX(share).toFixed(1)},${toY(ms).toFixed(1)}`)
      // Beside the curve's end, moved down where it would cover the label above.
      const y = Math.max(labelY, toY(curve.at(-1)?.[1] ?? p99Ms)) + 4
      labelY = y + LABEL_HEIGHT
      const x = PLOT.right + 12
      const heavy = heavyPerSecond ? `${heavyPerSecond.toPrecision(2)} heavy requests/s` : ''
      return [
        `<polyline points="${points.join(' ')}" fill="none" stroke="${colour}" stroke-width="2.5" stroke-linejoin="round"/>`,
        text(x, y, name, `fill="${colour}" font-weight="600"`),
        text(x, y + LINE_HEIGHT, `p50 ${formatMs(p50Ms)}, p99 ${formatMs(p99Ms)}`, `fill="${INK}"`),
        text(x, y + 2 * LINE_HEIGHT, heavy),
      ]
    }),
    '</svg>\n',
  ].join('\n')
}

/** Two significant digits: 0.52 ms, 1.4 ms, 340 ms, 3.1 s. */
function formatMs(ms: number): string {
  const [value, unit] = ms < 999.5 ? [ms, 'ms'] : [ms / 1_000, 's']
  return `${Number(value.toPrecision(2))} ${unit}`
}

const rule = (x1: number, y1: number, x2: number, y2: number) =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="${GRID}"/>`

function text(x: number, y: number, content: string, attributes = '') {
  const fill = attributes.includes('fill=') ? '' : ` fill="${FAINT}"`
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}${fill}>${escaped}</text>`
}
