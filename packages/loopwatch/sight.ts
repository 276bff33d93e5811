import { channel } from 'node:diagnostics_channel'

const MAX_FRAMES = 60

/** One function on the stack. */
export interface Frame {
  function: string
  /** `file:///…`, a path, or `node:…`. */
  url: string
  line: number
  column: number
  /** It does not run: it awaits the one above it. */
  awaits: boolean
}

/** The request that the event loop is busy with. */
export interface RequestInProgress {
  requestId: string
  route: string
}

/** What there was to see when the watchdog looked at the event loop's thread. */
export interface Sight {
  /** As V8 writes it. */
  stack: string
  request: RequestInProgress | undefined
  /** When it looked, in nanoseconds of `process.hrtime.bigint()`, as text. */
  seenAt: string
  /** The last beat by then: another one than expected says that the loop has come round since. */
  beat: string
}

interface Question {
  answer?: Sight
}

/**
 * The script that makes `onLook` answer. It is evaluated on the event loop's thread wherever that
 * is: V8 interrupts JavaScript at the next call or turn of a loop, and a regular expression in the
 * midst of its backtracking.
 */
export const lookScript = (name: string) => `{
  const question = {}
  process.getBuiltinModule('node:diagnostics_channel').channel(${JSON.stringify(name)}).publish(question)
  question.answer
}`

/**
 * Answers the watchdog's looks, in the midst of whatever the thread does: it must be quick and
 * touch nothing.
 *
 * @returns what ends it.
 */
export function onLook(
  name: string,
  beatOf: () => bigint | undefined,
  requestOf: () => RequestInProgress | undefined,
) {
  const looks = channel(name)
  const answer = (question: unknown) => {
    const seenAt = String(process.hrtime.bigint())
    const sight: Sight = {
      stack: stackHere(),
      request: requestOf(),
      seenAt,
      beat: String(beatOf()),
    }
    Object.assign(question as Question, { answer: sight })
  }
  looks.subscribe(answer)
  return () => void looks.unsubscribe(answer)
}

/**
 * The text, not V8's own frames, because where sources are transformed (Vitest, say) a hook makes
 * it name the original lines.
 */
function stackHere(): string {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = MAX_FRAMES
  const { stack = '' } = new Error('look')
  Error.stackTraceLimit = limit
  return stack
}

/**
 * ` at async Object.read [as get] (file:///a/b.ts:3:4)`, or without a name ` at
 * file:///a/b.ts:3:4`.
 */
const LINE =
  /^ +at (?<awaits>async )?(?:(?<name>.*?)(?: \[as .*\])? \()?(?<url>[^()]+?):(?<line>\d+):(?<column>\d+)\)?$/

/**
 * The innermost function first; without those in no file, such as `Array.map`, and without the
 * look's own.
 */
export function framesOf({ stack }: Sight): Frame[] {
  const lines = stack.split('\n')
  const own = lines.findIndex((line) => /^ +at (.* \()?<anonymous>:\d+:\d+\)?$/.test(line))
  return lines.slice(own + 1).flatMap((text) => {
    const { awaits, name = '', url, line, column } = LINE.exec(text)?.groups ?? {}
    if (!url || url === '<anonymous>') return []
    const function_ = name.replace(/^Object\./, '').replace(/^<anonymous>$/, '')
    return [
      {
        function: function_,
        url,
        line: Number(line),
        column: Number(column),
        awaits: awaits !== undefined,
      },
    ]
  })
}
