import { RecordReader } from './records.ts'
import { Unreadable } from './source.ts'

const DELIMITERS = [',', ';', '\t', '|']
/**
 * What `sep=` and `?delimiter=` may name: any character of ASCII that is neither a letter, nor a
 * digit, nor a quote; or `tab`.
 */
export const DELIMITER = /^([\t !#$%&'()*+,./:;<=>?@[\\\]^_`{|}~-]|tab)$/
/** How many rows at the head of a file the choice is made from. */
const SAMPLE_ROWS = 1_000
/** What is no CSV at all says so at its start. */
const START_BYTES = 1_000
const BYTE_ORDER_MARK = Buffer.from('\ufeff')

/** How the records of a file are to be read. */
export interface Dialect {
  delimiter: string
  /** Where the first record begins: after a byte order mark and a `sep=` line. */
  offset: number
  /** The line in which that is. */
  line: number
}

/**
 * Chooses the one delimiter of a file: the one that is asked for; or that the first line names, as
 * Excel does (`sep=;`); or that of `, ; tab |` which divides the most rows into as many fields as
 * the header has, the first of them if several do.
 *
 * @param head the first bytes of the file, if not all of it.
 * @throws Unreadable for what is no CSV in UTF-8, as far as its first bytes tell.
 */
export function findDialect(head: Buffer, requested: string | null): Dialect {
  const offset = head.subarray(0, 3).equals(BYTE_ORDER_MARK) ? 3 : 0
  const text = head.subarray(offset)
  assertText(text)
  const [line = '', named = ''] =
    /^"?sep=(.)"?(?:\r*\n|\r|$)/i.exec(text.toString('latin1', 0, 20)) ?? []
  if (DELIMITER.test(named))
    return { delimiter: requested ?? named, offset: offset + line.length, line: 2 }
  return { delimiter: requested ?? chooseDelimiter(text), offset, line: 1 }
}

function assertText(head: Buffer) {
  const start = head.toString('latin1', 0, START_BYTES).trimStart()
  if (start === '') throw new Unreadable('The file is empty')
  const encoding = findWideEncoding(head.subarray(0, START_BYTES))
  if (encoding) throw new Unreadable(`The file is ${encoding}: save it as UTF-8`)
  if (head.subarray(0, START_BYTES).includes(0))
    throw new Unreadable('The file is not a CSV: it holds binary data')
  if (/^<(!doctype|\?xml|html)/i.test(start))
    throw new Unreadable('The file is not a CSV but HTML or XML')
  if (/^(\{\s*"|\[\s*[{["])/.test(start)) throw new Unreadable('The file is not a CSV but JSON')
}

/**
 * UTF-32 or UTF-16 in either byte order: by its byte order mark, or because it holds zeros and
 * reads as text in no other way.
 */
function findWideEncoding(start: Buffer): 'UTF-32' | 'UTF-16' | undefined {
  if (isUtf32(start)) return 'UTF-32'
  if (/^(\u00ff\u00fe|\u00fe\u00ff)/.test(start.toString('latin1', 0, 2))) return 'UTF-16'
  return start.includes(0) && (isUtf16(start, 'utf-16le') || isUtf16(start, 'utf-16be'))
    ? 'UTF-16'
    : undefined
}

function isUtf32(start: Buffer): boolean {
  const view = new DataView(start.buffer, start.byteOffset, start.length)
  const codes = (isLittleEndian: boolean) =>
    Array.from({ length: Math.floor(start.length / 4) }, (_, index) =>
      view.getUint32(4 * index, isLittleEndian),
    )
  return [codes(true), codes(false)].some(
    (points) =>
      points.length > 0 &&
      points.every((code) => code <= 0x10_ffff) &&
      isText(String.fromCodePoint(...points)),
  )
}

function isUtf16(start: Buffer, encoding: 'utf-16le' | 'utf-16be'): boolean {
  // Half a character, or half of a surrogate pair, may be left at the end.
  const whole = start.subarray(0, start.length - (start.length % 2))
  try {
    return isText(new TextDecoder(encoding, { fatal: true }).decode(whole, { stream: true }))
  } catch {
    return false
  }
}

/** Whether all characters exist, and none is a control character but white space. */
const isText = (text: string) => text !== '' && !/[^\P{C}\p{Cf}\t\n\r]/u.test(text)

function chooseDelimiter(head: Buffer): string {
  let [best, most] = [',', 0]
  for (const delimiter of DELIMITERS) {
    const matching = countMatchingRows(head, delimiter)
    if (matching > most) [best, most] = [delimiter, matching]
  }
  return best
}

/** How many rows have as many fields as the header, itself included; none where that has one. */
function countMatchingRows(head: Buffer, delimiter: string): number {
  let header = 0
  let [rows, matching] = [0, 0]
  const count = ({ fields, start, stop }: RecordReader) => {
    if (start === stop || rows === SAMPLE_ROWS) return
    header ||= fields
    rows++
    if (fields === header) matching++
  }
  const reader = new RecordReader(delimiter, count, undefined, head.length)
  reader.push(head)
  // The last row may be cut off; where it is the only one, it is better than none.
  if (rows === 0) reader.end()
  return header > 1 ? matching : 0
}
