import { hash } from 'node:crypto'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Column, ColumnTypes, findDateOrders } from './column-types.ts'
import { MAX_TEXT_CHARACTERS, type Summary } from './contract.ts'
import { FLAWS, InvalidCsvError, MAX_COLUMNS, type RecordReader, readCsv } from './csv.ts'

/** Longer fields are cut, because DuckDB does not bound their memory. */
const MAX_FIELD_BYTES = 256
/** Larger than any row. */
const WRITE_BYTES = 2 * 1024 * 1024
/** DuckDB processes this many rows at a time. */
export const VECTOR_ROWS = 2_048
const MAX_REJECTED = 20
const MAX_REJECTED_CHARACTERS = 500
const EMPTY = Buffer.from('""')
/** A line to skip: DuckDB would drop a byte order mark from the first row. */
const HEADER = Buffer.from('header\n')
const LF = 10

export type ScannedCsv = ReturnType<Scan['finish']>

/**
 * Rejects invalid rows, finds the type of each column, and writes a copy that DuckDB cannot
 * misread.
 *
 * @throws InvalidCsvError if there is nothing to summarise.
 */
export async function scanCsv(
  { file, folder, delimiter }: { file: string; folder: string; delimiter: string | null },
  onProgress: (fraction: number) => void,
) {
  using scan = new Scan(join(folder, 'clean.csv'))
  return scan.finish(await readCsv(file, delimiter, scan.take, onProgress))
}

class Scan implements Disposable {
  /** Rows by RFC 4180 with equally many fields, each ended by `\n`. */
  readonly #file: string
  readonly #descriptor: number
  readonly #buffer = Buffer.allocUnsafe(WRITE_BYTES)
  #used = HEADER.copy(this.#buffer)
  #names: string[] = []
  #types: ColumnTypes[] = []
  readonly #rejected: Summary['rejected'] = { rows: 0, reasons: {}, first: [] }
  #rows = 0
  #isMultiline = false
  #maxRowBytes = 0
  #vectorBytes = 0
  /** The size of the largest block of `VECTOR_ROWS` rows. */
  #maxVectorBytes = 0

  constructor(file: string) {
    this.#file = file
    this.#descriptor = openSync(file, 'w')
  }

  readonly take = (record: RecordReader): void => {
    const columns = this.#types.length
    if (columns === 0) this.#takeHeader(record)
    else if (record.flaw) this.#reject(record, FLAWS[record.flaw])
    else if (record.fields > columns) this.#reject(record, 'It has too many columns')
    else if (record.fields === columns) this.#accept(record)
    else {
      const reason = record.isBlank ? 'It is empty' : 'It has too few columns'
      this.#reject(record, reason, this.#names[record.fields])
    }
  }

  finish(delimiter: string) {
    this.#flush()
    this.#assertRows()
    const orders = findDateOrders(this.#types)
    return {
      delimiter,
      columns: this.#types.map(
        (types, index): Column => ({
          name: this.#names[index] as string,
          sql: `c${index}`,
          nulls: types.missing,
          ...types.toType(this.#rows, orders),
        }),
      ),
      rows: this.#rows,
      rejected: this.#rejected,
      file: this.#file,
      isMultiline: this.#isMultiline,
      maxRowBytes: this.#maxRowBytes,
      maxVectorBytes: Math.max(this.#maxVectorBytes, this.#vectorBytes),
    }
  }

  [Symbol.dispose]() {
    closeSync(this.#descriptor)
  }

  #takeHeader(record: RecordReader) {
    const { line, fields, flaw } = record
    if (record.isBlank) return this.#reject(record, 'It is empty')
    if (flaw === 'encoding')
      throw new InvalidCsvError(
        `The file is not UTF-8: its header in line ${line} is not. Save it as UTF-8`,
      )
    if (flaw)
      throw new InvalidCsvError(
        `The file is not a CSV: its header in line ${line} cannot be read. ${FLAWS[flaw]}`,
      )
    if (fields > MAX_COLUMNS)
      throw new InvalidCsvError(`The file has ${fields} columns, more than ${MAX_COLUMNS}`)
    this.#names = toUniqueNames(Array.from({ length: fields }, (_, index) => record.field(index)))
    this.#types = this.#names.map(() => new ColumnTypes())
  }

  #accept(record: RecordReader) {
    const { bytes, start, stop, starts, stops } = record
    const types = this.#types
    let isClean = !record.hasStrayQuote && start !== stop
    const hasLongFields = stop - start > MAX_FIELD_BYTES
    for (let index = 0; index < types.length; index++) {
      const column = types[index] as ColumnTypes
      const [from, to] = [starts[index] as number, stops[index] as number]
      if (from === to) column.missing++
      else column.note(bytes, start + from, start + to)
      if (hasLongFields && to - from > MAX_FIELD_BYTES) isClean = false
    }
    if (record.innerLines > 0) this.#isMultiline = true
    if (isClean) return this.#write(bytes, start, stop)
    const row = this.#rewrite(record)
    this.#write(row, 0, row.length)
  }

  #reject({ line, text }: RecordReader, reason: string, column: string | null = null) {
    const { reasons, first } = this.#rejected
    this.#rejected.rows++
    reasons[reason] = (reasons[reason] ?? 0) + 1
    if (first.length < MAX_REJECTED)
      first.push({ line, column, reason, text: text.slice(0, MAX_REJECTED_CHARACTERS) })
  }

  #rewrite(record: RecordReader): Buffer {
    if (record.isBlank) return EMPTY
    const fields = Array.from({ length: record.fields }, (_, index) => toCleanField(record, index))
    return Buffer.from(fields.join(record.delimiter))
  }

  #write(bytes: Buffer, start: number, stop: number) {
    const length = stop - start + 1
    if (length > this.#buffer.length - this.#used) this.#flush()
    bytes.copy(this.#buffer, this.#used, start, stop)
    this.#used += length
    this.#buffer[this.#used - 1] = LF
    this.#maxRowBytes = Math.max(this.#maxRowBytes, length)
    this.#vectorBytes += length
    if (++this.#rows % VECTOR_ROWS > 0) return
    this.#maxVectorBytes = Math.max(this.#maxVectorBytes, this.#vectorBytes)
    this.#vectorBytes = 0
  }

  #flush() {
    // Unlike `writeSync`, it writes everything.
    writeFileSync(this.#descriptor, this.#buffer.subarray(0, this.#used))
    this.#used = 0
  }

  #assertRows() {
    const { rows, first } = this.#rejected
    if (this.#names.length === 0) throw new InvalidCsvError('The file is empty')
    if (this.#rows > 0) return
    if (rows === 0) throw new InvalidCsvError('The file is empty but for its header')
    throw new InvalidCsvError(
      `None of the file's ${rows} rows can be read. Line ${first[0]?.line}: ${first[0]?.reason}`,
    )
  }
}

function toCleanField(record: RecordReader, index: number): string {
  const text = record.field(index)
  const shown = shorten(text)
  const needsQuotes = record.isQuoted(index) || shown !== text || text.includes('"')
  return needsQuotes ? `"${shown.replaceAll('"', '""')}"` : text
}

/** Ends a long text with a hash, so that different texts stay different. */
function shorten(text: string): string {
  if (Buffer.byteLength(text) <= MAX_FIELD_BYTES) return text
  const start = Array.from(text.slice(0, 2 * MAX_TEXT_CHARACTERS))
  const shown = start.slice(0, MAX_TEXT_CHARACTERS).join('')
  return shown.length === text.length ? text : shown + hash('sha256', text, 'base64')
}

function toUniqueNames(names: readonly string[]): string[] {
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
