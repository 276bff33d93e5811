import { timeChart } from '../chart.js'
import { element } from '../element.js'
import { duration, number } from '../format.js'
import { LIGHT_PATH, onLightRequests, percentile, WINDOW_MS } from '../light-requests.js'
import { onSamples } from '../samples.js'

/** How a latency up to `upTo` feels to a person who waits. */
const TONES = [
  { upTo: 50, tone: 'good', word: 'fast' },
  { upTo: 200, tone: 'warn', word: 'slow' },
  { upTo: Number.POSITIVE_INFINITY, tone: 'bad', word: 'very slow' },
]

/**
 * What offloop promises, in figures: a light request is fast, however busy the threads are.
 *
 * @type {import('../live.js').Panel}
 */
export const panel = { title: 'Light request', order: 10, access: 'public', width: 'half', mount }

/** @type {import('../live.js').Panel['mount']} */
function mount(section, context) {
  const now = figure('now')
  const p99 = figure('p99 of two minutes')
  const busy = figure('threads busy')
  const word = element('span', { className: 'badge' })
  const container = element('div')
  section.append(
    element('div', { className: 'toolbar' }, section.firstElementChild ?? '', word),
    element('dl', { className: 'headline' }, now.item, p99.item, busy.item),
    container,
    element('p', { className: 'hint' }, `HEAD ${LIGHT_PATH} from this page, every three seconds.`),
  )
  const show = timeChart(container, {
    label: 'Latency of a light request over the last two minutes',
    lines: [{ label: 'Latency', colour: '--chart-1', area: true }],
    format: duration,
    windowMs: WINDOW_MS,
    atLeast: 20,
    height: 160,
    hasLegend: false,
  })

  onLightRequests(context, (times, latencies) => {
    show([times, latencies])
    const known = latencies.filter((latency) => latency !== null)
    showLatency(now.value, latencies.at(-1))
    showLatency(p99.value, percentile(known, 0.99))
    const { tone = '', word: text = '' } = toTone(latencies.at(-1)) ?? {}
    word.textContent = text
    word.dataset.tone = tone
  })

  const refusal = context.whyNot('operate')
  if (refusal) busy.label.textContent = `threads busy: ${refusal}`
  else
    onSamples(context, (samples) => {
      const { threads = [], queued } = samples.at(-1)?.compute ?? {}
      const busyThreads = threads.filter(({ task }) => task !== null)
      busy.value.textContent = `${busyThreads.length} of ${threads.length}`
      busy.label.textContent = `threads busy, ${number(queued)} queued`
    })
}

/** @param {string} text */
function figure(text) {
  const label = element('dt', {}, text)
  const value = element('dd', { className: 'figure' }, '–')
  return { label, value, item: element('div', {}, label, value) }
}

/** @param {HTMLElement} shown @param {number | null | undefined} latency */
function showLatency(shown, latency) {
  shown.textContent = duration(latency)
  shown.className = `figure ${toTone(latency)?.tone ?? ''}`
}

/** @param {number | null | undefined} latency */
const toTone = (latency) => TONES.find(({ upTo }) => typeof latency === 'number' && latency <= upTo)
