import { machine } from '../support/machine.ts'
import type { LightFigures } from './light.bench.ts'

/** The drawing, in pixels. */
const WIDTH = 900
const HEIGHT = 460
const PLOT = { left: 72, right: 640, top: 92, bottom: 396 }
/** A curve's name and, below it, two lines of figures. */
const LABEL_HEIGHT = 58
const LINE_HEIGHT = 17

const INK = '#1f2328'
const FAINT = '#59636e'
const GRID = '#d8dee4'
const CURVES = [
  { phase: 'inline', name: 'Inline, on the event loop', colour: '#cf222e' },
  { phase: 'offloaded', name: 'Offloaded to worker threads', colour: '#1a7f37' },
  { phase: 'idle', name: 'Idle: no heavy requests', colour: '#0969da' },
]

/**
 * The x axis runs to the last of these, each tenth of what is left above as long as the one before.
 */
const TICK_SHARES = [0.5, 0.9, 0.99, 0.999]

/** A share of the requests, and the latency that it stays below. */
export type CurvePoint = [share: number, ms: number]

type Phase = LightFigures['responsiveness']['phases'][number]
type Curve = (typeof CURVES)[number] & Phase
type ScaleY = ReturnType<typeof logScale>

/**
 * The latency of the light endpoint by percentile, as an SVG: both axes logarithmic, the curves
 * labelled where they end. It paints its own background, so that it reads the same on light and
 * dark pages.
 */
export function drawChart(results: LightFigures): string {
  const curves = CURVES.flatMap((curve) =>
    results.responsiveness.phases
      .filter(({ phase }) => phase === curve.phase)
      .map((phase): Curve => ({ ...curve, ...phase })),
  )
  const scale = logScale(curves.flatMap(({ curve }) => curve.map(([, ms]) => ms)))
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img"`,
    `  aria-label="${describe(curves)}" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="13">`,
    `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="6" fill="#ffffff" stroke="${GRID}"/>`,
    ...heading(results),
    ...gridX(),
    ...gridY(scale),
    ...curves.map(({ curve, colour }) => line(curve, scale, colour)),
    ...drawLabels(curves, scale),
    '</svg>\n',
  ].join('\n')
}

const describe = (curves: Curve[]) =>
  `Latency, 99th percentile: ${curves.map(({ name, p99Ms }) => `${name} ${duration(p99Ms)}`).join('; ')}`

function heading({ versions, settings }: LightFigures): string[] {
  const { lightPerSecond, heavyConnections } = settings.responsiveness
  return [
    text(24, 34, 'A light endpoint while every core counts primes', { size: 18, weight: 600 }),
    text(
      24,
      56,
      `GET /v1/products/{id} from MySQL at ${lightPerSecond} requests/s, while ${heavyConnections} clients ask for the primes below 1 400 000`,
      { colour: FAINT },
    ),
    text(
      24,
      75,
      `${machine.cpu}, ${machine.cores} cores for service, database and clients · Node ${process.version} · ${versions.database} · ${new Date().toISOString().slice(0, 10)}`,
      { colour: FAINT },
    ),
  ]
}

function gridX(): string[] {
  const middle = (PLOT.left + PLOT.right) / 2
  return [
    ...TICK_SHARES.flatMap((share) => {
      const x = xOf(share)
      return [
        rule(x, PLOT.top, x, PLOT.bottom),
        text(x, PLOT.bottom + 18, `${share * 100} %`, { anchor: 'middle', colour: FAINT }),
      ]
    }),
    text(middle, PLOT.bottom + 42, 'of the requests were answered within', {
      anchor: 'middle',
      colour: FAINT,
    }),
  ]
}

const gridY = ({ decades, yOf }: ScaleY): string[] =>
  decades.flatMap((ms) => [
    rule(PLOT.left, yOf(ms), PLOT.right, yOf(ms)),
    text(PLOT.left - 10, yOf(ms) + 4, duration(ms), { anchor: 'end', colour: FAINT }),
  ])

function line(curve: CurvePoint[], { yOf }: ScaleY, colour: string): string {
  const points = curve.map(([share, ms]) => `${xOf(share).toFixed(1)},${yOf(ms).toFixed(1)}`)
  return `<polyline points="${points.join(' ')}" fill="none" stroke="${colour}" stroke-width="2.5" stroke-linejoin="round"/>`
}

/** Each beside its curve's end, moved down where it would cover the one above. */
function drawLabels(curves: Curve[], { yOf }: ScaleY): string[] {
  const x = PLOT.right + 12
  let free = PLOT.top
  return curves.flatMap((curve) => {
    const y = Math.max(free, yOf(curve.curve.at(-1)?.[1] ?? curve.p99Ms)) + 4
    free = y + LABEL_HEIGHT
    return [
      text(x, y, curve.name, { colour: curve.colour, weight: 600 }),
      text(x, y + LINE_HEIGHT, `p50 ${duration(curve.p50Ms)}, p99 ${duration(curve.p99Ms)}`),
      text(x, y + 2 * LINE_HEIGHT, costs(curve), { colour: FAINT }),
    ]
  })
}

/** What the heavy clients got out of it, and what it took from the light ones. */
function costs({ heavyPerSecond, failed, sent }: Curve): string {
  if (heavyPerSecond === undefined) return ''
  const refused = failed > 0 ? `, ${Math.round((100 * failed) / sent)} % refused` : ''
  return `${heavyPerSecond.toPrecision(2)} heavy requests/s${refused}`
}

const xOf = (share: number) => {
  const along = Math.log10(1 - share) / Math.log10(1 - (TICK_SHARES.at(-1) ?? 0))
  return PLOT.left + along * (PLOT.right - PLOT.left)
}

/** From the power of ten below all values to the one above. */
function logScale(values: number[]) {
  const from = Math.floor(Math.log10(Math.min(...values)))
  const to = Math.ceil(Math.log10(Math.max(...values)))
  return {
    decades: Array.from({ length: to - from + 1 }, (_, index) => 10 ** (from + index)),
    yOf: (ms: number) =>
      PLOT.bottom - ((Math.log10(ms) - from) / (to - from)) * (PLOT.bottom - PLOT.top),
  }
}

/** Two significant digits: 0.52 ms, 1.4 ms, 340 ms, 3.1 s. */
function duration(ms: number): string {
  const [value, unit] = ms < 999.5 ? [ms, 'ms'] : [ms / 1_000, 's']
  return `${Number(value.toPrecision(2))} ${unit}`
}

const rule = (x1: number, y1: number, x2: number, y2: number) =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="${GRID}"/>`

interface TextStyle {
  size?: number
  weight?: number
  colour?: string
  anchor?: 'start' | 'middle' | 'end'
}

function text(
  x: number,
  y: number,
  content: string,
  { size = 13, weight = 400, colour = INK, anchor = 'start' }: TextStyle = {},
) {
  const style = `font-size="${size}" font-weight="${weight}" fill="${colour}" text-anchor="${anchor}"`
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${style}>${escapeXml(content)}</text>`
}

const escapeXml = (content: string) => content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
