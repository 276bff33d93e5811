import { element } from '../../element.js'
import { number } from '../../format.js'
import { countText, toConditions } from './filter.js'

/** Of one call. */
const MAX_CHANGED = 10_000
const VERBS = {
  scheduled: 'cancel',
  queued: 'cancel',
  running: 'cancel',
  parked: 'cancel',
  succeeded: undefined,
  failed: 'retry',
  cancelled: 'retry',
}
const TITLES = { cancel: 'Cancel', retry: 'Retry' }
const DONE = { cancel: 'Cancelled', retry: 'Queued again' }

/**
 * Retries or cancels all that match, where some do: those that failed unless a state is chosen.
 *
 * @param {{
 *   api: typeof import('../../api.js').api,
 *   filter: ReturnType<typeof import('./filter.js').jobFilter>,
 *   onDone: () => void,
 * }} options
 */
export function bulkAction({ api, filter, onDone }) {
  const button = element('button', { type: 'button', hidden: true })
  const status = element('span', { role: 'status' })
  const part = element('div', { className: 'row bulk' }, button, status)
  let count = 0

  const target = () => {
    const state = filter.value().state ?? 'failed'
    return { state, verb: /** @type {'cancel' | 'retry' | undefined} */ (VERBS[state]) }
  }

  button.onclick = async () => {
    const { state, verb } = target()
    if (!verb || !(await confirmed(question(verb, state, count)))) return
    status.className = 'hint'
    const body = { ...toConditions(filter.value()), state }
    const goal = Math.min(count, MAX_CHANGED)
    let done = 0
    let more = true
    try {
      // A call on a slow database changes less than it was asked for.
      while (more && done < goal) {
        status.textContent = `${DONE[verb]}: ${jobs(done)} so far`
        const answer = await api('POST', `/v1/jobs/${verb}`, { body })
        done += answer.changed
        more = answer.more
      }
      const rest = more ? ' More match.' : ''
      status.textContent = `${DONE[verb]}: ${jobs(done)}.${rest}`
    } catch (error) {
      status.className = 'error'
      status.textContent = /** @type {Error} */ (error).message
    }
    onDone()
  }

  return {
    part,
    /** @param {import('../jobs.js').Counts} counts */
    showCounts(counts) {
      const { state, verb } = target()
      count = counts[state]
      button.hidden = !verb || count === 0
      if (verb) button.textContent = `${TITLES[verb]} all ${countText(count)} ${state}`
    },
  }
}

/** @param {number} count */
const jobs = (count) => `${number(count)} ${count === 1 ? 'job' : 'jobs'}`

/** @param {'cancel' | 'retry'} verb @param {string} state @param {number} count */
function question(verb, state, count) {
  const which = `${countText(count)} ${state} ${count === 1 ? 'job' : 'jobs'}`
  return {
    title: `${TITLES[verb]} ${which}?`,
    text:
      count > MAX_CHANGED
        ? `These are all that match the filter. The newest ${number(MAX_CHANGED)} come first.`
        : 'These are all that match the filter.',
    yes: `${TITLES[verb]} ${jobs(Math.min(count, MAX_CHANGED))}`,
  }
}

/** @param {{ title: string, text: string, yes: string }} question @returns {Promise<boolean>} */
function confirmed({ title, text, yes }) {
  const heading = element('h3', { id: 'job-question' }, title)
  const accept = element('button', { value: 'yes', className: 'primary' }, yes)
  const decline = element('button', { value: 'no', autofocus: true }, 'Leave them')
  const buttons = element('p', { className: 'row' }, accept, decline)
  const form = element('form', { method: 'dialog' }, heading, element('p', {}, text), buttons)
  const dialog = element('dialog', { 'aria-labelledby': heading.id }, form)
  document.body.append(dialog)
  dialog.showModal()
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove()
      resolve(dialog.returnValue === 'yes')
    }
  })
}
