import { RecordReader } from './records.ts'
import { Unreadable } from './source.ts'

const DELIMITERS = [',', ';', '\t', '|']
/** What `sep=` and `?delimiter=` may name: any character of ASCII that is neither a letter, nor a digit, nor a quote; or `tab`. */
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
 * Chooses the one delimiter of a file: the one that is asked for; or that the first line names, as Excel does (`sep=;`); or
 * that of `, ; tab |` which divides the most rows into as many fields as the header has, the first of them if several do.
 *
 * @param head the first bytes of the file, if not all of it.
 * @throws Unreadable for what is no CSV in UTF-8, as far as its first bytes tell.
 */
export function findDialect(head: Buffer, requested: string | null): Dialect {
  const offset = head.subarray(0, 3).equals(BYTE_ORDER_MARK) ? 3 : 0
  const text = head.subarray(offset)
  assertText(text)
  const [line = '', named = ''] = /^"?sep=(.)"?(?:\r*\n|\r|$)/i.exec(text.toString('latin1', 0, 20)) ?? []
  if (DELIMITER.test(named)) return { delimiter: requested ?? named, offset: offset + line.length, line: 2 }
  return { delimiter: requested ?? chooseDelimiter(text), offset, line: 1 }
}

function assertText(head: Buffer) {
  const start = head.toString('latin1', 0, START_BYTES).trimStart()
  if (start === '') throw new Unreadable('The file is empty')
  if (/^(\u00ff\u00fe|\u00fe\u00ff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0])/.test(start))
    throw new Unreadable('The file is UTF-16: save it as UTF-8')
  if (head.subarray(0, START_BYTES).includes(0)) throw new Unreadable('The file is not a CSV: it holds binary data')
  if (/^<(!doctype|\?xml|html)/i.test(start)) throw new Unreadable('The file is not a CSV but HTML or XML')
  if (/^(\{\s*"|\[\s*[{["])/.test(start)) throw new Unreadable('The file is not a CSV but JSON')
}

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
