import { readFileSync } from 'node:fs'
import { relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Frame, parseFrames, type StackSample } from './stack-sample.ts'

const PROJECT = process.cwd() + sep

/** What blocked the event loop, and its request. Without a sample, all of it is absent. */
export interface BlockingFrame {
  /** `(anonymous)` without a name. */
  function?: string
  /** Relative inside the working directory, otherwise absolute or a URL: `node:fs`. */
  file?: string
  /** From 1. */
  line?: number
  /** Native code ran, called at `line` or before. */
  inNativeCall?: true
  /** Absent if what ran belongs to no request. */
  requestId?: string
  route?: string
}

/** One time that the event loop was blocked. */
export interface Block extends BlockingFrame {
  /** Milliseconds since the epoch. */
  at: number
  /** Rounded down by at most one heartbeat. */
  blockedMs: number
}

/** ` by render (src/page.ts:15)`, ` by parse (a.ts, at or before line 15)`, ` (not sampled)`. */
export function formatCause({ function: name, file, line, inNativeCall }: BlockingFrame): string {
  if (name === undefined) return ' (not sampled)'
  return ` by ${name} (${file}${inNativeCall ? `, at or before line ${line}` : `:${line}`})`
}

export const describeBlock = (block: Block) =>
  `The event loop was blocked for ${block.blockedMs} ms${formatCause(block)}`

/**
 * The innermost function of the working directory, otherwise of a package, otherwise of Node.
 *
 * @param isLate whether V8 could not interrupt at once: native code ran, such as `JSON.parse`, and
 * the sample's innermost function began after it.
 */
export function findBlockingFrame(sample: StackSample, isLate: boolean): BlockingFrame {
  const frames = parseFrames(sample)
  const [first] = frames
  const isAfterNative = isLate && first !== undefined && !isLoop(first)
  const running = frames.slice(1).filter(({ isAwaiting }) => !isAwaiting)
  const candidates = isAfterNative ? running : frames
  const frame = candidates.find(isOwn) ?? candidates.find((one) => !isNode(one)) ?? candidates[0]
  if (!frame) return { ...sample.request }
  return {
    function: frame.name || '(anonymous)',
    file: isInside(frame) ? relative(PROJECT, toPath(frame)) : toPath(frame),
    line: frame.line,
    ...(isAfterNative && frame === candidates[0] && { inNativeCall: true }),
    ...sample.request,
  }
}

const toPath = ({ url }: Frame) => (url.startsWith('file:') ? fileURLToPath(url) : url)

const isNode = ({ url }: Frame) => url.startsWith('node:')

const isInside = (frame: Frame) => toPath(frame).startsWith(PROJECT)

const isOwn = (frame: Frame) => isInside(frame) && !toPath(frame).includes('/node_modules/')

/** V8 interrupts a loop at its keyword. */
function isLoop(frame: Frame): boolean {
  if (isNode(frame)) return false
  try {
    const line = readFileSync(toPath(frame), 'utf8').split('\n')[frame.line - 1] ?? ''
    return /^(for|while|do)\b/.test(line.slice(frame.column - 1))
  } catch {
    return false
  }
}
