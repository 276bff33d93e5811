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
  /** `process.hrtime.bigint()`, as text for JSON. */
  at: string
  /** The last beat by then: a later one shows that the block was over. */
  beat: string
  /** As V8 prints it. */
  stack: string
  request: CurrentRequest | undefined
}

/**
 * For the main thread: answers `sampleStack` amid whatever runs, so it must be quick and change
 * nothing. Only text has the original lines of transformed sources.
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
 * For another thread: interrupts the main thread for 0.1 ms, which V8 allows at calls, loop turns
 * and inside regular expressions.
 *
 * @returns undefined while the main thread ends.
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

export interface Frame {
  name: string
  /** `file:///…`, a path, or `node:…`. */
  url: string
  line: number
  column: number
  /** The function awaits the one above it. */
  isAwaiting: boolean
}

/** ` at async Object.read [as get] (file:///a/b.ts:3:4)`, or ` at file:///a/b.ts:3:4`. */
const AT = /^ +at (?<async>async )?/
const NAME = /(?:(?<name>.*?)(?: \[as .*\])? \()?/
const PLACE = /(?<url>[^()]+?):(?<line>\d+):(?<column>\d+)\)?$/
const FRAME = new RegExp(AT.source + NAME.source + PLACE.source)

/** Innermost first, without those of the sampling or of no file (`Array.map`). */
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
