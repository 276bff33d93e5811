/**
 * What the page reads of a `.cpuprofile`: the DevTools protocol's `Profiler.Profile`. Times are in
 * microseconds, lines count from 0.
 *
 * @typedef {object} CpuProfile
 * @property {{ id: number, callFrame: { functionName: string, url: string, lineNumber: number,
 * columnNumber: number }, children?: number[] }[]} nodes the root is the first
 * @property {number} startTime
 * @property {number} endTime
 * @property {number[]} samples
 * @property {number[]} timeDeltas each sample's time since the one before
 * @property {string} folder the URL of the service's folder
 */

/** @typedef {CpuProfile['nodes'][number]} Node */

/** @typedef {'own' | 'package' | 'node' | 'native'} Category */

/**
 * @typedef {object} Callee a function, wherever it was called
 * @property {string} name
 * @property {string} place `src/app.ts:12`; empty for native code
 * @property {Category} category
 * @property {number} selfMs
 * @property {number} totalMs with what it called
 */

/**
 * @typedef {object} Frame a function as it was called by others: one path of calls
 * @property {Callee} callee
 * @property {Frame | undefined} parent
 * @property {Frame[]} children the longest first
 * @property {number} selfMs
 * @property {number} totalMs
 */

/**
 * @typedef {object} CallTree
 * @property {Frame} root
 * @property {Callee[]} callees the longest by themselves first
 * @property {number} busyMs
 * @property {number} idleMs not in the tree
 * @property {number} withoutCoreMs not in the tree either
 * @property {number} samples
 */

/** @typedef {{ frame: Frame, left: number, width: number, row: number }} Bar in pixels and rows */

/** V8 does not tell a worker thread's wait for its next task from its native code. */
const IDLE = { loop: ['(idle)'], thread: ['(idle)', '(program)'] }
/** Samples are taken each millisecond: for longer, the thread had no core. */
const MAX_SAMPLE_MS = 10
/** In pixels: nobody sees less. */
const MIN_WIDTH = 0.5
/** Below the frame that is zoomed into. */
const MAX_ROWS = 100

/**
 * Adds up the samples of each path of calls.
 *
 * @param {CpuProfile} profile
 * @param {keyof typeof IDLE} [of]
 * @returns {CallTree}
 */
export function buildTree(profile, of = 'loop') {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]))
  const { selfMs, withoutCoreMs } = readSelfTimes(profile)
  const findCallee = calleeFinder(profile.folder)
  let idleMs = 0

  /** @param {Node[]} same V8 has several for a function that it compiled again @param {Callee} callee @param {Frame} [parent] */
  function build(same, callee, parent) {
    /** @type {Frame} */
    const frame = { callee, parent, children: [], selfMs: 0, totalMs: 0 }
    for (const { id } of same) frame.selfMs += selfMs.get(id) ?? 0
    frame.totalMs = frame.selfMs
    for (const [callee, group] of groupChildren(same)) {
      const child = build(group, callee, frame)
      if (child.totalMs === 0) continue
      frame.children.push(child)
      frame.totalMs += child.totalMs
    }
    if (frame.children.length > 1) frame.children.sort((one, other) => other.totalMs - one.totalMs)
    return frame
  }

  /** @param {Node[]} parents */
  function groupChildren(parents) {
    /** @type {Map<Callee, Node[]>} */
    const groups = new Map()
    for (const { children = [] } of parents)
      for (const id of children) {
        const child = nodes.get(id)
        if (!child) continue
        if (IDLE[of].includes(child.callFrame.functionName)) {
          idleMs += selfMs.get(id) ?? 0
          continue
        }
        const callee = findCallee(child.callFrame)
        const group = groups.get(callee)
        if (group) group.push(child)
        else groups.set(callee, [child])
      }
    return groups
  }

  const [first] = profile.nodes
  const root = build([first], findCallee(first.callFrame))
  const callees = addUpCallees(root).sort((one, other) => other.selfMs - one.selfMs)
  const { length: samples } = profile.samples
  return { root, callees, busyMs: root.totalMs, idleMs, withoutCoreMs, samples }
}

/** A sample stands for the time until the next one. @param {CpuProfile} profile */
function readSelfTimes({ samples, timeDeltas, startTime, endTime }) {
  /** @type {Map<number, number>} */
  const selfMs = new Map()
  let withoutCoreMs = 0
  let time = startTime + (timeDeltas[0] ?? 0)
  for (const [index, id] of samples.entries()) {
    const next = index + 1 < samples.length ? time + timeDeltas[index + 1] : endTime
    const ms = Math.max(0, next - time) / 1_000
    selfMs.set(id, (selfMs.get(id) ?? 0) + Math.min(ms, MAX_SAMPLE_MS))
    withoutCoreMs += Math.max(0, ms - MAX_SAMPLE_MS)
    time = next
  }
  return { selfMs, withoutCoreMs }
}

/** Finds the same object for the same function. @param {string} folder */
function calleeFinder(folder) {
  /** @type {Map<string, Callee>} */
  const callees = new Map()
  return (/** @type {Node['callFrame']} */ callFrame) => {
    const { functionName, url, lineNumber, columnNumber } = callFrame
    const key = `${functionName} ${url}:${lineNumber}:${columnNumber}`
    const known = callees.get(key)
    if (known) return known
    const path = url.startsWith(folder) ? url.slice(folder.length) : url.replace('file://', '')
    const callee = {
      name: functionName || '(anonymous)',
      place: url ? `${decode(path)}:${lineNumber + 1}` : '',
      category: categorise(callFrame, folder),
      selfMs: 0,
      totalMs: 0,
    }
    callees.set(key, callee)
    return callee
  }
}

/** Code may name itself as it likes, by `sourceURL`. @param {string} path */
function decode(path) {
  try {
    return decodeURI(path)
  } catch {
    return path
  }
}

/** @param {{ url: string }} callFrame @param {string} folder @returns {Category} */
function categorise({ url }, folder) {
  if (url === '') return 'native'
  if (url.startsWith('node:')) return 'node'
  if (url.includes('/node_modules/')) return 'package'
  return url.startsWith(folder) || url.startsWith('wasm:') ? 'own' : 'package'
}

/** A function that calls itself counts once. @param {Frame} root */
function addUpCallees(root) {
  /** @type {Set<Callee>} */
  const all = new Set()
  /** @type {Set<Callee>} */
  const open = new Set()
  const visit = (/** @type {Frame} */ { callee, selfMs, totalMs, children }) => {
    const isOutermost = !open.has(callee)
    all.add(callee)
    open.add(callee)
    callee.selfMs += selfMs
    if (isOutermost) callee.totalMs += totalMs
    for (const child of children) visit(child)
    if (isOutermost) open.delete(callee)
  }
  for (const child of root.children) visit(child)
  return [...all]
}

/**
 * The bars of a flame graph: those that called the zoomed frame in the first rows, then the frame
 * in the whole width, and below it what it called.
 *
 * @param {Frame} zoomed
 * @param {number} width in pixels
 * @returns {Bar[]}
 */
export function layOut(zoomed, width) {
  const callers = pathTo(zoomed).slice(0, -1)
  /** @type {Bar[]} */
  const bars = callers.map((frame, row) => ({ frame, left: 0, width, row }))
  const scale = width / zoomed.totalMs
  const lastRow = callers.length + MAX_ROWS
  const place = (
    /** @type {Frame} */ frame,
    /** @type {number} */ left,
    /** @type {number} */ row,
  ) => {
    bars.push({ frame, left, width: frame.totalMs * scale, row })
    if (row === lastRow) return
    let childLeft = left
    for (const child of frame.children) {
      // The others are shorter.
      if (child.totalMs * scale < MIN_WIDTH) break
      place(child, childLeft, row + 1)
      childLeft += child.totalMs * scale
    }
  }
  if (zoomed.totalMs > 0) place(zoomed, 0, callers.length)
  return bars
}

/** From the root. @param {Frame} frame */
function pathTo(frame) {
  const path = [frame]
  for (let caller = frame.parent; caller; caller = caller.parent) path.unshift(caller)
  return path
}

/**
 * Which functions have the text in their name or place, and how long they ran with what they called.
 *
 * @param {CallTree} tree
 * @param {string} text
 */
export function search({ root, callees }, text) {
  const wanted = text.trim().toLowerCase()
  const matches = new Set(
    wanted
      ? callees.filter(({ name, place }) => `${name} ${place}`.toLowerCase().includes(wanted))
      : [],
  )
  const addUp = (/** @type {Frame} */ { callee, totalMs, children }) => {
    if (matches.has(callee)) return totalMs
    let sum = 0
    for (const child of children) sum += addUp(child)
    return sum
  }
  return { matches, totalMs: matches.size > 0 ? addUp(root) : 0 }
}
