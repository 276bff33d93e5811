import { readFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { stripTypeScriptTypes } from 'node:module'

/** A place in a source file, lines and columns from 1. */
interface Place {
  line: number
  column: number
}

/** One that V8 could stop at, from 0. */
interface BreakLocation {
  lineNumber: number
  columnNumber: number
  type?: string
}

/**
 * The line of the call that a function made before the one that it is at now: that one held the
 * event loop where the engine could be interrupted only at the next call. It is the one before in
 * the text, or among the arguments; where there are branches in between, it may not be the one that
 * ran. V8 itself says where the calls are: it parses the source once more, on this thread, whose
 * own inspector costs the event loop nothing.
 */
export function lineOfCallBefore(path: string, at: Place): number | undefined {
  const text = readFileSync(path, 'utf8')
  const source = path.endsWith('ts') ? stripTypeScriptTypes(text) : text
  const now = { lineNumber: at.line - 1, columnNumber: at.column - 1 }
  const inspected = inspectSource(source)
  try {
    const calls = inspected.locations().filter(({ type }) => type === 'call')
    const argumentsEnd = offsetOfClose(source, offsetOf(source, now))
    const inArguments = calls.filter(
      (call) => isBefore(now, call) && offsetOf(source, call) < argumentsEnd,
    )
    const earlier = calls.filter((call) => isBefore(call, now)).toReversed()
    const call = [...inArguments.toReversed(), ...earlier].find((candidate) =>
      inspected.shareFunction(candidate, now),
    )
    return call && call.lineNumber + 1
  } finally {
    inspected.close()
  }
}

function inspectSource(source: string) {
  const session = new Session()
  session.connect()
  let scriptId = ''
  // On its own thread a session answers at once.
  session.post('Runtime.enable')
  session.post('Debugger.enable')
  session.post(
    'Runtime.compileScript',
    { expression: asScript(source), sourceURL: '', persistScript: true },
    (_, answer) => {
      scriptId = answer?.scriptId ?? ''
    },
  )
  const locationsFrom = (from: BreakLocation, restrictToFunction: boolean): BreakLocation[] => {
    let found: BreakLocation[] = []
    const { lineNumber, columnNumber } = from
    const start = { scriptId, lineNumber, columnNumber }
    session.post('Debugger.getPossibleBreakpoints', { start, restrictToFunction }, (_, answer) => {
      found = (answer?.locations ?? []) as BreakLocation[]
    })
    return found
  }
  return {
    locations: () => locationsFrom({ lineNumber: 0, columnNumber: 0 }, false),
    /** Whether both are in one function, and not the one in a function within. */
    shareFunction(a: BreakLocation, b: BreakLocation): boolean {
      const [first, second] = isBefore(a, b) ? [a, b] : [b, a]
      return locationsFrom(first, true).some((location) => isSame(location, second))
    },
    close: () => session.disconnect(),
  }
}

/**
 * V8's inspector compiles scripts, not modules. So what only a module may have makes way for
 * blanks, which leaves everything in its place but the first line, which has no calls that take
 * long; all is put into an async function, for `await`.
 */
function asScript(source: string): string {
  const blank = (text: string) => text.replace(/[^\n]/g, ' ')
  const body = source
    .replace(/^import\b[^('"]*(['"])[^'"]*\1.*$/gm, blank)
    .replace(/^export\s*(\*|\{)[^;]*?(;|$)/gm, blank)
    .replace(/^export( default)?(?= )/gm, blank)
    .replaceAll('import.meta', 'import_meta')
  return `async()=>{${body}\n}`
}

const isSame = (a: BreakLocation, b: BreakLocation) =>
  a.lineNumber === b.lineNumber && a.columnNumber === b.columnNumber

const isBefore = (a: BreakLocation, b: BreakLocation) =>
  a.lineNumber < b.lineNumber || (a.lineNumber === b.lineNumber && a.columnNumber < b.columnNumber)

function offsetOf(source: string, { lineNumber, columnNumber }: BreakLocation): number {
  let offset = 0
  for (let line = 0; line < lineNumber; line++) offset = source.indexOf('\n', offset) + 1
  return offset + columnNumber
}

/** Where the parenthesis closes that opens next; text in quotes is skipped. */
function offsetOfClose(source: string, from: number): number {
  const tokens = /(['"`])(?:\\.|(?!\1)[^\\])*\1|[()]/gs
  tokens.lastIndex = from
  let depth = 0
  for (let token = tokens.exec(source); token; token = tokens.exec(source)) {
    if (token[0] === '(') depth++
    if (token[0] === ')' && --depth <= 0) return token.index
  }
  return from
}
