import { themeColour, timeChart } from '../chart.js'
import { element } from '../element.js'
import { duration, percent, timeOfDay } from '../format.js'
import { onSamples, serviceNow } from '../samples.js'

/** @typedef {import('@offloop/loopwatch/incident').Incident} Incident */

const WINDOW_MS = 120_000
const MAX_LISTED = 5
/** Pixels from a mark within which the pointer means it. */
const REACH = 8

/** How late the event loop was, second by second, and what the watchdog found to be the reason. */
export function mount(
  /** @type {HTMLElement} */ section,
  /** @type {import('../live.js').PanelContext} */ context,
) {
  /** @type {Incident[]} */
  let incidents = []

  const busy = element('p', { className: 'aside' })
  const head = element('div', { className: 'toolbar' }, section.firstElementChild ?? '', busy)
  const hint = element(
    'p',
    { className: 'hint' },
    'How late the loop came to what was due, per second. Low and flat is good.',
  )
  const container = element('div')
  const culprits = element('div', { className: 'culprits', 'aria-live': 'polite' })
  section.append(head, hint, container, culprits)

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
    plugins: [incidentMarks(() => incidents)],
  })

  onSamples(context, (samples) => {
    incidents = samples.flatMap(({ incidents }) => incidents)
    show([
      samples.map(({ at }) => at),
      samples.map(({ loop }) => loop.max),
      samples.map(({ loop }) => loop.p99),
    ])
    busy.textContent = `${percent(samples.at(-1)?.loop.utilization)} busy`
    listCulprits(culprits, incidents)
  })
}

/**
 * The newest first; the list changes only when there is something new, so that it is not read out
 * every second.
 */
function listCulprits(/** @type {HTMLElement} */ list, /** @type {Incident[]} */ incidents) {
  const newest = incidents.toReversed().slice(0, MAX_LISTED)
  const key = newest.map(({ at }) => at).join()
  if (list.dataset.key === key) return
  list.dataset.key = key
  if (newest.length === 0) return list.replaceChildren()
  list.replaceChildren(
    element('h3', {}, 'What held it'),
    element('ul', {}, ...newest.map((incident) => element('li', {}, ...describe(incident)))),
  )
}

/** @param {Incident} incident */
const describe = (incident) => [
  element('time', {}, timeOfDay(incident.at)),
  element('b', {}, duration(incident.heldMs)),
  element('code', {}, nameOf(incident)),
  element(
    'span',
    { className: 'hint' },
    [incident.route, incident.requestId].filter(Boolean).join(' · '),
  ),
]

/** Function, file and line, as far as they are known. @param {Incident} incident */
const nameOf = ({ function: name, file, line }) =>
  file ? `${name || '(anonymous)'} ${placeOf(file)}:${line}` : name

/** Relative to the project where it lies in it. @param {string} file */
const placeOf = (file) =>
  file.replace(/^file:\/\//, '').replace(/^.*\/(?=(src|test|node_modules)\/)/, '')

/**
 * A line through the chart wherever the watchdog named a culprit, with its name when the pointer is
 * near.
 *
 * @param {() => Incident[]} read
 * @returns {import('/vendor/uplot.js').Plugin}
 */
function incidentMarks(read) {
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
        tip.textContent = `Held ${duration(near.heldMs)} by ${nameOf(near)}`
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
