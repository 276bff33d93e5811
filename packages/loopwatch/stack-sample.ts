import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Session } from 'node:inspector'

const MAX_FRAMES = 60

/** The request that the event loop is busy with. */
export interface CurrentRequest {
  requestId: string
  /** The pattern that it matched: `/v1/orders/:id`. */
  route: string
}

/** What the main thread ran when it was sampled. */
export interface StackSample {
  /** When, in nanoseconds of `process.hrtime.bigint()`; as text, because JSON has no bigint. */
  at: string
  /** The last beat by then: a later one than expected shows that the block was over. */
  beat: string
  /** As V8 prints it. */
  stack: string
  request: CurrentRequest | undefined
}

/**
 * For the main thread: answers `sampleStack` in the middle of whatever runs, so it must be quick
 * and change nothing. The stack is text because only the text has original lines where a hook maps
 * transformed sources.
 *
 * @returns a function that stops it.
 */
export function answerSamples(
  channelName: string,
  readBeat: () => bigint | undefined,
  currentRequest: () => CurrentRequest | undefined,
): () => void {
  const answer = (question: unknown) => {
    const at = String(process.hrtime.bigint())
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = MAX_FRAMES
    const { stack = '' } = new Error('sample')
    Error.stackTraceLimit = stackTraceLimit
    const sample: StackSample = { at, beat: String(readBeat()), stack, request: currentRequest() }
    Object.assign(question as object, { sample })
  }
  subscribe(channelName, answer)
  return () => void unsubscribe(channelName, answer)
}

/**
 * For another thread: interrupts the main thread, which V8 allows at a call, at the turn of a loop
 * and inside a regular expression, to evaluate a script of 0.1 ms. No debugger is enabled, so its
 * code stays as fast as it was.
 *
 * @returns nothing while the main thread ends.
 */
export async function sampleStack(channelName: string): Promise<StackSample | undefined> {
  const expression = `{
    const question = {}
    process.getBuiltinModule('node:diagnostics_channel').channel('${channelName}').publish(question)
    question.sample
  }`
  const session = new Session()
  session.connectToMainThread()
  try {
    return await new Promise((resolve) =>
      session.post(
        'Runtime.evaluate',
        { expression, returnByValue: true, silent: true },
        (_, answer) => resolve(answer?.result.value as StackSample | undefined),
      ),
    )
  } finally {
    // An open session would delay the exit of the process.
    session.disconnect()
  }
}

/** One function on the stack. */
export interface Frame {
  name: string
  /** `file:///…`, a path, or `node:…`. */
  url: string
  line: number
  column: number
  /** It does not run, but awaits the one above it. */
  isAwaiting: boolean
}

/** ` at async Object.read [as get] (file:///a/b.ts:3:4)`, or ` at file:///a/b.ts:3:4`. */
const AT = /^ +at (?<async>async )?/
const NAME = /(?:(?<name>.*?)(?: \[as .*\])? \()?/
const PLACE = /(?<url>[^()]+?):(?<line>\d+):(?<column>\d+)\)?$/
const FRAME = new RegExp(AT.source + NAME.source + PLACE.source)

/** The innermost first, without functions of no file (`Array.map`) and those of the sampling. */
export function parseFrames({ stack }: StackSample): Frame[] {
  const lines = stack.split('\n')
  const script = lines.findIndex((line) => /^ +at (.* \()?<anonymous>:\d+:\d+\)?$/.test(line))
  return lines.slice(script + 1).flatMap((text) => {
    const { async, name = '', url, line, column } = FRAME.exec(text)?.groups ?? {}
    if (!url || url === '<anonymous>') return []
    return {
      name: name.replace(/^Object\./, '').replace(/^<anonymous>$/, ''),
      url,
      line: Number(line),
      column: Number(column),
      isAwaiting: async !== undefined,
    }
  })
}
