import { element } from './element.js'

const CHOSEN = 'offloop:request'

/**
 * A button that shows a request in the panel of requests.
 *
 * @param {string} requestId
 * @param {string} [of] what it belongs to, where several on the page have it
 */
export const requestButton = (requestId, of) =>
  element(
    'button',
    {
      type: 'button',
      className: 'small request',
      'aria-label': `Show request ${requestId}${of ? ` of ${of}` : ''}`,
      onclick: () => document.dispatchEvent(new CustomEvent(CHOSEN, { detail: { requestId } })),
    },
    element('code', {}, requestId),
  )

/** @param {(requestId: string) => void} show */
export const onRequestChosen = (show) =>
  document.addEventListener(CHOSEN, (event) =>
    show(/** @type {CustomEvent<{ requestId: string }>} */ (event).detail.requestId),
  )
