import { readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { lineOfCallBefore } from './call-before.ts'
import { type Culprit, UNKNOWN } from './incident.ts'
import { type Frame, framesOf, type Sight } from './sight.ts'

const PROJECT = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Who held the event loop: of the functions on the stack the innermost of the project's own, else
 * of a package's, else of Node's.
 *
 * @param late whether the engine could not be interrupted at once. Then native code held the loop,
 * such as `JSON.parse`, and what can be seen is the first call after its return: that function has
 * only just begun, and its caller is to blame.
 */
export function culpritOf(sight: Sight, late: boolean): Culprit {
  const frames = framesOf(sight)
  const [first] = frames
  const afterNative = late && first !== undefined && !isInLoop(first)
  // Who awaits a function that has only just begun had no part in what was before.
  const suspects = afterNative ? frames.slice(1).filter(({ awaits }) => !awaits) : frames
  const frame = suspects.find(isOwn) ?? suspects.find((suspect) => !isNode(suspect)) ?? suspects[0]
  if (!frame) return { ...UNKNOWN, ...sight.request }
  const calledNative = afterNative && frame === suspects[0]
  return {
    function: frame.function || '(anonymous)',
    file: fileOf(frame),
    line: (calledNative ? callBefore(frame) : undefined) ?? frame.line,
    ...sight.request,
  }
}

const pathOf = ({ url }: Frame) => (url.startsWith('file:') ? fileURLToPath(url) : url)

const isNode = ({ url }: Frame) => url.startsWith('node:')

const isOwn = (frame: Frame) => {
  const path = pathOf(frame)
  return path.startsWith(PROJECT) && !path.includes('/node_modules/')
}

function fileOf(frame: Frame): string {
  const path = pathOf(frame)
  return path.startsWith(PROJECT) ? relative(PROJECT, path) : path
}

/**
 * V8 looks for interruptions where a function begins and where a loop turns: the latter has the
 * loop's own place.
 */
function isInLoop(frame: Frame): boolean {
  if (isNode(frame)) return false
  try {
    const line = readFileSync(pathOf(frame), 'utf8').split('\n')[frame.line - 1] ?? ''
    return /^(for|while|do)\b/.test(line.slice(frame.column - 1))
  } catch {
    return false
  }
}

/**
 * Files may be gone or changed by now, and not every one can be parsed by itself: then the line of
 * the next call must do.
 */
function callBefore(frame: Frame): number | undefined {
  try {
    return lineOfCallBefore(pathOf(frame), frame)
  } catch {
    return undefined
  }
}
