import { element } from '../../element.js'
import { duration, number, percent } from '../../format.js'

/** @typedef {import('../../../src/ops/live-spans.ts').TaskSpan} Span */
/** @typedef {import('../../../src/ops/live-spans.ts').RunningTask} RunningTask */
/** @typedef {import('../../../src/ops/live-samples.ts').OpsSample['blocks'][number]} Block */

/**
 * An ended task, several in a row, a running task, or a block of the event loop.
 *
 * @typedef {object} Bar
 * @property {string} thread
 * @property {number} startedAt
 * @property {number} endedAt infinite while it runs
 * @property {string} [task]
 * @property {number} count
 * @property {number} [runMs]
 * @property {number} [queuedMs]
 * @property {Span['outcome']} [outcome]
 * @property {number} [progress]
 * @property {string} [requestId]
 * @property {Block} [block]
 */

export const LOOP = 'event loop'
const COLOURS = 8
/** Farther apart, a sample is missing between two: the timer may be late. */
const MISSING_MS = 1_900

/** @param {RunningTask} running @returns {Bar} */
export const toOpenBar = (running) => ({ ...running, endedAt: Number.POSITIVE_INFINITY })

/** @param {Block} block @returns {Bar} */
export const toBlockBar = (block) => ({
  thread: LOOP,
  startedAt: block.at,
  endedAt: block.at + block.blockedMs,
  count: 1,
  requestId: block.requestId,
  block,
})

/**
 * The depth of the queue in the time before each sample: since the last one, or a second where one
 * is missing.
 *
 * @param {Pick<import('../../../src/ops/live-samples.ts').OpsSample, 'at' | 'compute'>[]} samples
 */
export const toSteps = (samples) =>
  samples.map(({ at, compute: { queued } }, index) => {
    const before = samples[index - 1]?.at ?? 0
    return { from: at - before < MISSING_MS ? before : at - 1_000, to: at, queued }
  })

/** The same colour for a task every time, by its name. @param {string} task */
export function pickColour(task) {
  let hash = 0
  for (const character of task) hash = (hash * 5 + character.charCodeAt(0)) | 0
  return `--task-${(Math.abs(hash) % COLOURS) + 1}`
}

/**
 * What a bar is, in words.
 *
 * @param {Bar} bar
 * @param {number} now
 */
export function describe({ block, ...bar }, now) {
  if (block)
    return {
      what: `Blocked by ${formatFrame(block)}`,
      length: duration(block.blockedMs),
      waited: '–',
      outcome: block.route ?? '–',
    }
  const what = bar.count === 1 ? `${bar.task}` : `${bar.task} × ${number(bar.count)}`
  if (bar.endedAt === Number.POSITIVE_INFINITY)
    return {
      what,
      length: duration(Math.max(0, Math.round((now - bar.startedAt) / 100) * 100)),
      waited: '–',
      outcome: bar.progress === undefined ? 'running' : `running, ${percent(bar.progress)} done`,
    }
  return {
    what,
    length: duration(bar.runMs),
    waited: duration(bar.queuedMs),
    outcome: `${bar.outcome}`.replace('_', ' '),
  }
}

/** @param {Bar} bar @param {number} now @param {string} process its name, if there are others */
export function toTip(bar, now, process) {
  const { what, length, waited, outcome } = describe(bar, now)
  return [
    element('b', {}, what),
    element('span', {}, `${length} on ${bar.block ? 'the ' : ''}${bar.thread}`),
    ...(process ? [element('span', {}, process)] : []),
    ...(waited === '–' ? [] : [element('span', {}, `waited ${waited}`)]),
    element('span', {}, outcome),
    element('code', {}, bar.requestId ?? (bar.count === 1 ? 'no request' : 'several requests')),
  ]
}

/** Function and place, if a sample was taken. @param {Partial<Block>} block */
function formatFrame({ function: name, file, line }) {
  if (name === undefined) return 'code that was not sampled'
  return file ? `${name} (${file.split('/').at(-1)}:${line})` : name
}
