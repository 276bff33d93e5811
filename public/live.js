import { io } from '/vendor/socket.io.js'

/**
 * @typedef {'connecting' | 'live' | 'paused' | 'offline'} LiveState `paused` while the tab is
 * hidden.
 */

/**
 * What a panel is given.
 *
 * @typedef {object} PanelContext
 * @property {ReturnType<typeof openLive>} live
 * @property {typeof import('./api.js').api} api
 * @property {ReturnType<typeof openLive>['status']} status
 * @property {(scope: string) => string | undefined} whyNot why the visitor may not use what takes
 * the scope; undefined where they may
 */

/**
 * What every file in `panels/` exports as `panel`. The name of the file is the id of its section.
 *
 * @typedef {object} Panel
 * @property {string} title
 * @property {number} order panels with lower numbers come first
 * @property {string} access who sees it: `public`, or those with this scope
 * @property {'full' | 'wide' | 'half' | 'narrow'} width all, two thirds, half or a third of a row
 * @property {boolean} [example] it stands among the examples, which fold away
 * @property {(section: HTMLElement, context: PanelContext) => void} mount fills the section, which
 * has its title, and keeps it up to date
 */

/**
 * Opens the page's only connection. Its events are hints; the truth is read by HTTP, in
 * `onReconnect`. A hidden tab is unsubscribed, and costs the service nothing.
 */
export function openLive() {
  const socket = io({
    transports: ['websocket'],
    reconnectionDelay: 250,
    reconnectionDelayMax: 2_000,
  })
  /** Subscribers of each topic. @type {Map<string, number>} */
  const topics = new Map()
  /** @type {Set<() => void>} */
  const reconnectListeners = new Set()
  /** @type {Set<(state: LiveState, lostAt: number | undefined) => void>} */
  const stateListeners = new Set()
  /** @type {number | undefined} */
  let lostAt
  /** @type {LiveState} */
  let state = 'connecting'

  const readState = () => {
    if (document.hidden) return 'paused'
    if (socket.connected) return 'live'
    return lostAt === undefined ? 'connecting' : 'offline'
  }
  const notifyState = () => {
    if (state === readState()) return
    state = readState()
    for (const listener of stateListeners) listener(state, lostAt)
  }
  const noteLoss = () => {
    lostAt ??= Date.now()
    notifyState()
  }
  /** @param {'subscribe' | 'unsubscribe'} verb @param {string} topic */
  const send = async (verb, topic) => {
    // Repeated on the next connection.
    if (socket.connected) await socket.emitWithAck(verb, topic).catch(() => {})
  }

  /** Refetches after the subscriptions, so that no change is missed in between. */
  async function resume() {
    notifyState()
    if (!socket.connected || document.hidden) return
    await Promise.all([...topics.keys()].map((topic) => send('subscribe', topic)))
    for (const refetch of reconnectListeners) refetch()
  }

  socket.on('connect', () => {
    lostAt = undefined
    void resume()
  })
  socket.on('disconnect', (reason) => {
    noteLoss()
    // The session has ended. Socket.IO does not reconnect by itself then.
    if (reason === 'io server disconnect') socket.connect()
  })
  socket.on('connect_error', noteLoss)
  // Events of other processes may have been missed.
  socket.on('server.resync', resume)
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) return void resume()
    for (const topic of topics.keys()) send('unsubscribe', topic)
    notifyState()
  })

  return {
    /**
     * Several panels may subscribe to one topic: each unsubscribes for itself.
     *
     * @param {string} topic
     */
    subscribe(topic) {
      const count = topics.get(topic) ?? 0
      topics.set(topic, count + 1)
      if (count === 0 && !document.hidden) send('subscribe', topic)
    },

    /** @param {string} topic */
    unsubscribe(topic) {
      const count = topics.get(topic) ?? 0
      if (count > 1) return void topics.set(topic, count - 1)
      topics.delete(topic)
      send('unsubscribe', topic)
    },

    /**
     * @param {string} event
     * @param {(payload: any) => void} listener
     * @returns {() => void} removes the listener
     */
    on(event, listener) {
      socket.on(event, listener)
      return () => socket.off(event, listener)
    },

    /**
     * Calls `refetch` whenever events may have been missed: on each connection, the first included,
     * when the tab is shown again, and when the service says so. All topics are subscribed by then.
     *
     * @param {() => void} refetch
     */
    onReconnect(refetch) {
      reconnectListeners.add(refetch)
    },

    /**
     * Calls the listener now and on every change.
     *
     * @param {(state: LiveState, lostAt: number | undefined) => void} listener `lostAt` in
     * milliseconds since the epoch, while there is no connection
     */
    onState(listener) {
      stateListeners.add(listener)
      listener(state, lostAt)
    },

    /**
     * The function shows a message in the element, errors as such. An error of an outage goes with
     * it: the element has its first text again.
     *
     * @param {HTMLElement} element one that stays as long as the page
     * @returns {(message: string | Error) => void}
     */
    status(element) {
      const first = element.textContent ?? ''
      let isOutage = false
      /** @param {string | Error} message */
      const show = (message) => {
        const error = /** @type {import('./api.js').ApiError | false} */ (
          message instanceof Error && message
        )
        isOutage = error && error.status === 0
        element.textContent = error ? explain(error) : /** @type {string} */ (message)
        element.classList.toggle('error', error !== false)
      }
      reconnectListeners.add(() => isOutage && show(first))
      return show
    },
  }
}

/** @param {import('./api.js').ApiError} error */
const explain = ({ message, errors }) =>
  errors ? errors.map(({ message }) => message).join('. ') : message
