import { hash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CleanCopy } from './clean-copy.ts'
import { ColumnTypes, type TypedColumn } from './column-types.ts'
import { MAX_TEXT_CHARACTERS } from './contract.ts'
import { type Dialect, findDialect } from './dialect.ts'
import { dateOrders } from './moments.ts'
import { FLAWS, MAX_COLUMNS, RecordReader } from './records.ts'
import { RejectedRows } from './rejected.ts'
import { openSource, Unreadable } from './source.ts'

/** So much is read before the delimiter is chosen. */
const HEAD_BYTES = 256 * 1024
const LINE_ENDS = { '\n': Buffer.from('\n'), '\r\n': Buffer.from('\r\n') }
const EMPTY = Buffer.from('""')
/**
 * Longer fields are cut in the copy: no result shows all of them, and DuckDB has no bound for the
 * memory that they take.
 */
const MAX_FIELD_BYTES = 256
/** A longer header is not in the copy. */
const MAX_HEADER_BYTES = 16_384
/** DuckDB works on so many rows at a time. */
export const VECTOR_ROWS = 2_048

export interface ScanInput {
  file: string
  /** Where a clean copy goes. */
  folder: string
  /** The delimiter that was asked for, if one was. */
  delimiter: string | null
}

/** What is known of a CSV once all of it was read. */
export interface ScannedCsv {
  delimiter: string
  columns: TypedColumn[]
  rows: number
  rejected: RejectedRows
  clean: CleanFile
}

/**
 * A file of records by RFC 4180 that end alike and have the same number of fields, after a line
 * that is none of them: the upload itself, or a copy.
 */
export interface CleanFile {
  file: string
  lineEnd: '\n' | '\r\n'
  /** Some rows have line ends within quotes. */
  isMultiline: boolean
  maxRowBytes: number
  /** The most that as many rows have together as DuckDB works on at a time. */
  maxVectorBytes: number
}

/**
 * Reads all of an upload: checks its encoding, splits it into rows, rejects those that do not fit,
 * and finds the type of each column. What DuckDB reads after that holds nothing that it could take
 * for something else.
 *
 * @param onProgress told how much of the file was read, from 0 to 1.
 * @throws Unreadable when there is nothing to summarise.
 */
export async function scanCsv(
  input: ScanInput,
  onProgress: (fraction: number) => void,
): Promise<ScannedCsv> {
  const { size } = await stat(input.file)
  let read = 0
  const { isGzip, chunks } = await openSource(input.file, (bytes) => {
    read += bytes
    onProgress(read / size)
  })
  using scan = new Scan(input, isGzip ? undefined : size)
  for await (const chunk of chunks) scan.push(chunk)
  return scan.finish()
}

class Scan implements Disposable {
  readonly #input: ScanInput
  readonly #size: number | undefined
  readonly #head: Buffer[] = []
  #dialect: Dialect | undefined
  #reader: RecordReader | undefined
  #names: string[] = []
  #types: ColumnTypes[] = []
  #rows = 0
  #maxRowBytes = 0
  #vectorBytes = 0
  #maxVectorBytes = 0
  readonly #rejected = new RejectedRows()
  #lineEnd: '\n' | '\r\n' = '\n'
  #isMultiline = false
  /** Where the rows begin in the upload; they cannot be read from there where it is zipped. */
  #rowsOffset: number | undefined
  #copy: CleanCopy | undefined
  /** Rows that are the next to be copied, from `#runStart` to `#runEnd` of the reader's bytes. */
  #runStart = -1
  #runEnd = -1
  readonly #writeRun = () => this.#endRun()

  /** @param size of the upload, in bytes; undefined for one that is zipped. */
  constructor(input: ScanInput, size: number | undefined) {
    this.#input = input
    this.#size = size
  }

  push(chunk: Buffer): void {
    if (this.#reader) this.#reader.push(chunk, this.#writeRun)
    else this.#head.push(Buffer.from(chunk))
    if (!this.#reader && this.#head.reduce((bytes, { length }) => bytes + length, 0) >= HEAD_BYTES)
      this.#begin()
  }

  finish(): ScannedCsv {
    const reader = this.#reader ?? this.#begin()
    reader.end(this.#writeRun)
    this.#copy?.flush()
    this.#assertRows()
    const orders = dateOrders(this.#types.flatMap(({ moments }) => moments ?? []))
    const columns = this.#types.map((types, index) =>
      types.typed(this.#names[index] as string, this.#rows, orders),
    )
    const { delimiter } = this.#dialect as Dialect
    return {
      delimiter,
      columns,
      rows: this.#rows,
      rejected: this.#rejected,
      clean: {
        file: this.#copy?.file ?? this.#input.file,
        lineEnd: this.#lineEnd,
        isMultiline: this.#isMultiline,
        maxRowBytes: this.#maxRowBytes,
        maxVectorBytes: Math.max(this.#maxVectorBytes, this.#vectorBytes),
      },
    }
  }

  [Symbol.dispose]() {
    this.#copy?.[Symbol.dispose]()
  }

  #begin(): RecordReader {
    const head = Buffer.concat(this.#head)
    this.#dialect = findDialect(head, this.#input.delimiter)
    const { delimiter, offset } = this.#dialect
    this.#reader = new RecordReader(
      delimiter,
      (record) => this.#take(record),
      this.#dialect,
      this.#size,
    )
    this.#reader.push(head.subarray(offset), this.#writeRun)
    return this.#reader
  }

  #take(record: RecordReader) {
    if (this.#names.length === 0) return this.#takeHeader(record)
    const { fields, flaw } = record
    const columns = this.#types.length
    if (flaw) this.#reject(record, FLAWS[flaw])
    else if (fields > columns) this.#reject(record, 'It has too many columns')
    else if (fields < columns)
      this.#reject(
        record,
        isBlank(record) ? 'It is empty' : 'It has too few columns',
        this.#names[fields],
      )
    else this.#accept(record)
  }

  #takeHeader(record: RecordReader) {
    const { line, fields, flaw, lineEnd, isMultiline, next, start } = record
    if (isBlank(record)) return this.#rejected.add('It is empty', line, null, () => '')
    if (flaw === 'encoding')
      throw new Unreadable(
        `The file is not UTF-8: its header in line ${line} is not. Save it as UTF-8`,
      )
    if (flaw)
      throw new Unreadable(
        `The file is not a CSV: its header in line ${line} cannot be read. ${FLAWS[flaw]}`,
      )
    if (fields > MAX_COLUMNS)
      throw new Unreadable(`The file has ${fields} columns, more than ${MAX_COLUMNS}`)
    this.#names = uniqueNames(Array.from({ length: fields }, (_, index) => record.field(index)))
    this.#types = this.#names.map(() => new ColumnTypes())
    if (lineEnd === '\r\n') this.#lineEnd = lineEnd
    this.#rowsOffset = record.offset + next - start
    const bytes = next - start
    const isLine =
      !isMultiline &&
      line === 1 &&
      lineEnd !== '\r' &&
      lineEnd !== '\r\r\n' &&
      bytes <= MAX_HEADER_BYTES
    this.#maxRowBytes = Math.min(bytes, MAX_HEADER_BYTES)
    if (!isLine || this.#size === undefined) this.#beginCopy(this.#rowsOffset)
  }

  #accept(record: RecordReader) {
    const { bytes, starts, stops, start, next } = record
    const types = this.#types
    let hasLongField = false
    for (let index = 0; index < types.length; index++) {
      const column = types[index] as ColumnTypes
      const fieldStart = starts[index] as number
      const fieldStop = stops[index] as number
      if (fieldStart === fieldStop) column.missing++
      else column.note(bytes, fieldStart, fieldStop)
      if (fieldStop - fieldStart > MAX_FIELD_BYTES) hasLongField = true
    }
    if (record.isMultiline) this.#isMultiline = true
    const hasOtherEnd = record.lineEnd !== this.#lineEnd && record.lineEnd !== ''
    if (hasLongField || record.hasStrayQuote || hasOtherEnd || isBlank(record))
      return this.#count(this.#rewrite(record))
    this.#count(next - start)
    if (!this.#copy) return
    if (this.#runEnd !== start) {
      this.#endRun()
      this.#runStart = start
    }
    this.#runEnd = next
  }

  #reject(record: RecordReader, reason: string, column: string | null = null) {
    this.#beginCopy(record.offset)
    this.#rejected.add(reason, record.line, column, () => record.text)
  }

  /** From here on the upload is not clean: what was so far is copied, if it can still be read. */
  #beginCopy(offset: number) {
    if (this.#copy) return
    this.#copy = new CleanCopy(join(this.#input.folder, 'clean.csv'))
    this.#copy.write(Buffer.from(`header${this.#lineEnd}`))
    this.#copy.writeFrom(this.#input.file, this.#rowsOffset as number, offset)
  }

  #endRun() {
    if (this.#runEnd >= 0)
      this.#copy?.write(this.#reader?.bytes.subarray(this.#runStart, this.#runEnd) as Buffer)
    this.#runEnd = -1
  }

  /** Counts a row that has so many bytes in the clean file. */
  #count(bytes: number) {
    if (bytes > this.#maxRowBytes) this.#maxRowBytes = bytes
    this.#vectorBytes += bytes
    if (++this.#rows % VECTOR_ROWS > 0) return
    this.#maxVectorBytes = Math.max(this.#maxVectorBytes, this.#vectorBytes)
    this.#vectorBytes = 0
  }

  /** Writes a row as RFC 4180 has it, its long fields cut; gives how many bytes that are. */
  #rewrite(record: RecordReader): number {
    this.#beginCopy(record.offset)
    this.#endRun()
    const delimiter = Buffer.from((this.#dialect as Dialect).delimiter)
    const pieces: Uint8Array[] = []
    for (let index = 0; index < record.fields; index++)
      pieces.push(cleanField(record, index), delimiter)
    pieces.pop()
    if (isBlank(record)) pieces.push(EMPTY)
    pieces.push(LINE_ENDS[this.#lineEnd])
    for (const piece of pieces) this.#copy?.write(piece)
    return pieces.reduce((bytes, { length }) => bytes + length, 0)
  }

  #assertRows() {
    if (this.#names.length === 0) throw new Unreadable('The file is empty')
    if (this.#rows > 0) return
    const { rows, first } = this.#rejected.summary()
    if (rows === 0) throw new Unreadable('The file is empty but for its header')
    const [{ line, reason } = { line: 0, reason: '' }] = first
    throw new Unreadable(`None of the file's ${rows} rows can be read. Line ${line}: ${reason}`)
  }
}

const isBlank = ({ start, stop, flaw }: RecordReader) => start === stop && flaw === null

function cleanField(record: RecordReader, index: number): Uint8Array {
  const [start, stop] = [record.starts[index] as number, record.stops[index] as number]
  const field = record.bytes.subarray(start, stop)
  if (field.length > MAX_FIELD_BYTES) return quoted(shorten(record.field(index)))
  if (record.isQuoted(index)) return record.bytes.subarray(start - 1, stop + 1)
  return field.includes('"') ? quoted(field.toString()) : field
}

const quoted = (text: string) => Buffer.from(`"${text.replaceAll('"', '""')}"`)

/**
 * As much of a text as is shown, and a hash in place of the rest: texts that differ still do, and
 * sort as before. How its quotes are written must not matter.
 */
function shorten(text: string): string {
  if (Buffer.byteLength(text) <= MAX_FIELD_BYTES) return text
  const shown = Array.from(text.slice(0, 2 * MAX_TEXT_CHARACTERS))
    .slice(0, MAX_TEXT_CHARACTERS)
    .join('')
  return shown.length === text.length ? text : shown + hash('sha256', text, 'base64')
}

/**
 * Names as they are in the file; those without one, and repeated ones, get one that no other column
 * has.
 */
function uniqueNames(names: readonly string[]): string[] {
  const given = new Set<string>()
  return names.map((name, index) => {
    const base = name === '' ? `column ${index + 1}` : name
    let unique = base
    for (let repeat = 1; given.has(unique) || (unique !== name && names.includes(unique)); repeat++)
      unique = `${base}_${repeat}`
    given.add(unique)
    return unique
  })
}
