import { io } from '/vendor/socket.io.js'

/**
 * @typedef {'connecting' | 'live' | 'paused' | 'offline'} LiveState `paused` while the tab is
 * hidden.
 */

/**
 * What a panel is given.
 *
 * @typedef {{ live: ReturnType<typeof openLive>, api: typeof import('./api.js').api }} PanelContext
 */

/**
 * What every file in `panels/` exports: fills its section, once, and keeps it up to date.
 *
 * @typedef {(section: HTMLElement, context: PanelContext) => void} Mount
 */

/**
 * Opens the page's one connection. What comes over it are hints; the truth is read by HTTP, in
 * `onReconnect`. A hidden tab hears nothing, and costs the service nothing, until it is shown
 * again.
 */
export function openLive() {
  const socket = io({
    transports: ['websocket'],
    reconnectionDelay: 250,
    reconnectionDelayMax: 2_000,
  })
  /** How many want each topic. @type {Map<string, number>} */
  const topics = new Map()
  /** @type {Set<() => void>} */
  const returned = new Set()
  /** @type {Set<(state: LiveState) => void>} */
  const watching = new Set()
  let wasLost = false

  const state = () => {
    if (document.hidden) return 'paused'
    if (socket.connected) return 'live'
    return wasLost ? 'offline' : 'connecting'
  }
  const tellState = () => {
    for (const tell of watching) tell(state())
  }
  /** @param {'subscribe' | 'unsubscribe'} verb @param {string} topic */
  const send = async (verb, topic) => {
    // What a connection takes with it is said again on the next one.
    if (socket.connected) await socket.emitWithAck(verb, topic).catch(() => {})
  }

  /** Refetching comes after the subscriptions, so that nothing falls in between. */
  async function listenAgain() {
    tellState()
    if (!socket.connected || document.hidden) return
    await Promise.all([...topics.keys()].map((topic) => send('subscribe', topic)))
    for (const refetch of returned) refetch()
  }

  socket.on('connect', listenAgain)
  socket.on('disconnect', () => {
    wasLost = true
    tellState()
  })
  socket.on('connect_error', () => {
    wasLost = true
    tellState()
  })
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) return void listenAgain()
    for (const topic of topics.keys()) send('unsubscribe', topic)
    tellState()
  })

  return {
    /**
     * Hears a topic's events from now on. Several panels may want the same: each of them
     * unsubscribes for itself. @param {string} topic
     */
    subscribe(topic) {
      const wanted = topics.get(topic) ?? 0
      topics.set(topic, wanted + 1)
      if (wanted === 0 && !document.hidden) send('subscribe', topic)
    },

    /** @param {string} topic */
    unsubscribe(topic) {
      const wanted = topics.get(topic) ?? 0
      if (wanted > 1) return void topics.set(topic, wanted - 1)
      topics.delete(topic)
      send('unsubscribe', topic)
    },

    /**
     * @param {string} event
     * @param {(payload: any) => void} listener
     * @returns {() => void} ends it
     */
    on(event, listener) {
      socket.on(event, listener)
      return () => socket.off(event, listener)
    },

    /**
     * Calls `refetch` whenever events may have been missed: each time that the connection stands
     * (the first time, too), and when the tab is shown again. By then all topics are subscribed.
     *
     * @param {() => void} refetch
     */
    onReconnect(refetch) {
      returned.add(refetch)
    },

    /** Tells the state now and on every change. @param {(state: LiveState) => void} tell */
    onState(tell) {
      watching.add(tell)
      tell(state())
    },
  }
}
