import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import type { ColumnSummary, Summary } from '../../../src/features/reports/contract.ts'
import { summaries } from '../../support/summaries.ts'

const { summarise } = summaries()

/** More rows than DuckDB's sniffer looks at. */
const MANY = 20_600
/** A column whose first rows are all alike. */
const late = (header: string, usual: string, ...rest: string[]) =>
  `${header}\n${`${usual}\n`.repeat(MANY)}${rest.map((row) => `${row}\n`).join('')}`

const column = ({ columns }: Summary, index = 0) => columns[index] as ColumnSummary
const values = (summary: Summary, index = 0) =>
  column(summary, index).top?.map(({ value }) => value)
const counts = ({ rows, rejected }: Summary) => [rows, rejected.rows]
const keys = ({ groups }: Summary) => groups?.first.map(({ key, count }) => [key, count])

const reasonOf = (content: string | Buffer) =>
  summarise(content).then(
    () => expect.unreachable('It was summarised'),
    (error: Error) => error.message,
  )

describe('rows and fields', () => {
  test('an apostrophe is text', async () => {
    const summary = await summarise("town,n\n's-Gravenhage,1\nAssen,2\nthe Jones',3\nUtrecht,4\n")
    expect(counts(summary)).toEqual([4, 0])
    expect(values(summary)).toEqual(["'s-Gravenhage", 'Assen', 'Utrecht', "the Jones'"])
    expect(column(summary, 1).mean).toBe(2.5)
    expect(values(await summarise("a\n'tis\n'\n"))).toEqual(["'", "'tis"])
  })

  test.each<[string, string, string, number]>([
    ['a field', '"p","q"', 'p', 1],
    ['a doubled quote', '"say ""hi""",q', 'say "hi"', 1],
    ['a line end', '"p\nq",r', 'p\nq', 1],
    ['a delimiter', '"x,y",1', 'x,y', 1],
  ])('quotes around %s are read wherever they first come', async (_, row, value, times) => {
    const summary = await summarise(late('a,b', 'x,y', row))
    expect(counts(summary)).toEqual([MANY + 1, 0])
    expect(column(summary).top).toEqual([
      { value: 'x', count: MANY },
      { value, count: times },
    ])
  })

  test('a row with too few fields after its quotes does not change how others are read', async () => {
    const summary = await summarise(late('a,b,c', 'x,y,z', '"Smith, J",w', '"Smith, J",w,v'))
    expect(counts(summary)).toEqual([MANY + 1, 1])
    expect(summary.rejected.first).toEqual([
      { line: MANY + 2, column: 'c', reason: 'It has too few columns', text: '"Smith, J",w' },
    ])
    expect(values(summary)).toEqual(['x', 'Smith, J'])
  })

  test('a quote within a field is text, and one that is followed by something is rejected', async () => {
    const summary = await summarise('a,b\n5" pipe,1\n"x"y,2\n z "q",3\n"open,4\n')
    expect(values(summary)).toEqual([' z "q"', '5" pipe'])
    expect(summary.rejected).toMatchObject({
      rows: 2,
      reasons: { 'A quote is not closed, or something follows it': 2 },
    })
    expect(summary.rejected.first.map(({ line }) => line)).toEqual([3, 5])
  })

  test.each<[string, string, number[], string[]]>([
    [
      'after a line like a comment',
      '# made by a tool\ncolour,name\n#FF0000,red\nx,y\n',
      [0, 3],
      [],
    ],
    ['in a header', '#id\na,1\nb,2\n', [0, 2], []],
    ['in the header of one column', '#id0\n2,2\n3\n3,3\n1,2\n2\n', [2, 3], ['#id0']],
    ['in a plain table', 'colour,name\n#FF0000,red\nx,y\n', [2, 0], ['colour', 'name']],
  ])('# %s is text', async (_, content, expected, names) => {
    if (expected[0] === 0) {
      expect(await reasonOf(content)).toMatch(
        `None of the file's ${expected[1]} rows can be read. Line 2: It has too many`,
      )
      return
    }
    const summary = await summarise(content)
    expect(counts(summary)).toEqual(expected)
    expect(summary.columns.map(({ name }) => name)).toEqual(names)
  })

  test.each<[string, string, number]>([
    ['\\r\\n after \\r\\n and \\n', 'a,b\r\nx,y\nz,w\r\n', 2],
    ['\\r\\n after many \\n', `a,b\n${'x,y\n'.repeat(21_000)}z,w\r\n`, 21_001],
    ['\\n after many \\r\\n', `a,b\r\n${'x,y\r\n'.repeat(21_000)}z,w\n`, 21_001],
    ['\\r', 'a,b\rx,y\rz,w\r', 2],
    ['\\r\\r\\n', 'a,b\r\r\nx,y\r\r\nz,w\r\r\n', 2],
    ['all of them', 'a,b\nx,y\rz,w\r\nv,u\r\r\nt,s', 4],
  ])('rows end in %s', async (_, content, rows) => {
    const summary = await summarise(content)
    expect(counts(summary)).toEqual([rows, 0])
    expect(column(summary, 1).max).toBe('y')
  })

  test.each([1_500_000, 2_097_153, 5_000_000])(
    'a row of %i characters is counted as rejected',
    async (length) => {
      const content = `id,t\n${'1,a\n'.repeat(50_000)}2,${'x'.repeat(length)}\n${'1,a\n'.repeat(5)}`
      const summary = await summarise(content)
      expect(counts(summary)).toEqual([50_005, 1])
      expect(summary.rejected.first).toMatchObject([{ line: 50_002, reason: 'It is too long' }])
      expect(counts(await summarise(gzipSync(content)))).toEqual([50_005, 1])
    },
  )

  test('rows of just under a million bytes are read, and one byte more is rejected', async () => {
    const row = (length: number, letter: string) => `1,${letter.repeat(length - 2)}\n`
    const summary = await summarise(
      `id,t\n${row(999_999, 'x')}${row(1_000_000, '"')}${row(1_000_001, 'y')}2,z\n`,
    )
    expect(counts(summary)).toEqual([3, 1])
    expect(column(summary, 1).distinct).toBe(3)
  })

  test.each(['x', 'é', '語', '😀'])(
    'long texts are told apart by all of their characters, and cut where they are shown: %s',
    async (letter) => {
      const start = letter.repeat(200)
      const end = letter.repeat(5_000)
      const summary = await summarise(
        `t,n\n${start},1\n${start}${end}b,2\n"${start}${end}a",4\n"${start}${end}a",8\n${start}${end}a,16\n${start}b,32\n`,
        { groupBy: 't', value: 'n' },
      )
      const shown = `${start}…`
      expect(column(summary)).toMatchObject({ type: 'text', distinct: 4, min: start, max: shown })
      expect(values(summary)).toEqual([shown, start, shown, shown])
      expect(summary.groups?.first.map(({ key, count }) => [key, count])).toEqual([
        [shown, 3],
        [start, 1],
        [shown, 1],
        [shown, 1],
      ])
      expect(summary.groups?.first.map(({ sum }) => sum).sort()).toEqual([1, 2, 28, 32])
    },
  )

  test('a long text is the same whether its quotes are doubled or stray', async () => {
    // The second one is long only with its quotes doubled.
    for (const text of [`5" ${'x'.repeat(500)} "`, `5${'"'.repeat(30)}${'x'.repeat(200)}`]) {
      const summary = await summarise(`t,n\n${text},1\n"${text.replaceAll('"', '""')}",2\n`, {
        groupBy: 't',
        value: 'n',
      })
      expect([column(summary).distinct, summary.groups?.first]).toMatchObject([
        1,
        [{ count: 2, sum: 3 }],
      ])
    }
  })

  test('long rows are read among short ones, also under a long header', async () => {
    const name = 'n'.repeat(500_000)
    const long = Array.from(
      { length: 40 },
      (_, index) => `${index},${String(index).repeat(60_000)}\n`,
    ).join('')
    const summary = await summarise(
      `id,${name}\n${'1,a\n'.repeat(50_000)}${long}${'1,a\n'.repeat(50_000)}`,
    )
    expect(counts(summary)).toEqual([100_040, 0])
    expect(summary.columns.map(({ name, distinct }) => [name.length, distinct])).toEqual([
      [2, 40],
      [500_000, 41],
    ])
  })

  test('a line that is empty is a missing value where there is one column, and rejected where there are more', async () => {
    const one = await summarise('a\n1\n\n2\n\n')
    expect([counts(one), column(one).nulls]).toEqual([[4, 0], 2])
    const two = await summarise('\n\na,b\n1,2\n\n3,4\n')
    expect([counts(two), two.rejected.reasons]).toEqual([[2, 3], { 'It is empty': 3 }])
  })

  test('when no row can be read, the reason is given', async () => {
    for (const content of ['a,b,c,\n1,2,3\n4,5,6\n', 'a,b,c,d\n1,2,3\n4,5,6\n'])
      expect(await reasonOf(content)).toBe(
        "None of the file's 2 rows can be read. Line 2: It has too few columns",
      )
    for (const content of ['one,two,three\n1,2,3,4\n', 'name\nSmith, J\n'])
      expect(await reasonOf(content)).toBe(
        "None of the file's 1 rows can be read. Line 2: It has too many columns",
      )
    const latin1 = Buffer.from('Ort\nK\xf6ln\n', 'latin1')
    expect(await reasonOf(latin1)).toBe(
      "None of the file's 1 rows can be read. Line 2: It is not valid UTF-8",
    )
  })

  test('records with line ends in them are right in a file of many blocks', async () => {
    const row = (index: number) =>
      `${index},"line one of ${index}\nline, ""two"" of ${index}",${index % 7}\n`
    const rows = Array.from({ length: 120_000 }, (_, index) => row(index))
    const summary = await summarise(`id,text,n\n${rows.join('')}`)
    expect(counts(summary)).toEqual([120_000, 0])
    expect(column(summary)).toMatchObject({
      type: 'integer',
      distinct: 120_000,
      min: 0,
      max: 119_999,
    })
    expect(column(summary, 1)).toMatchObject({
      distinct: 120_000,
      min: 'line one of 0\nline, "two" of 0',
    })
  })
})

describe('rows that are so long that their columns are read in slices', () => {
  const names = ['key', ...Array.from({ length: 197 }, (_, index) => `c${index}`), 'n']
  const rows = Array.from({ length: 240 }, (_, row) => [
    `k${row % 3}`,
    ...names.slice(1, -1).map((name) => `${name} ${row % 50}`.padEnd(12) + '😀'.repeat(188)),
    String(row),
  ])
  const content = [names, ...rows, ['too', 'few']].map((fields) => `${fields.join(',')}\n`).join('')

  test('have all columns in their order, and groups of columns that are far apart', async () => {
    const summary = await summarise(content, { groupBy: 'key', value: 'n' })
    expect(counts(summary)).toEqual([240, 1])
    expect(summary.columns.map(({ name }) => name)).toEqual(names)
    expect(summary.columns.map(({ distinct }) => distinct)).toEqual([
      3,
      ...Array(197).fill(50),
      240,
    ])
    expect(column(summary, 100).min).toBe(`${'c99 0'.padEnd(12)}${'😀'.repeat(188)}`)
    expect(summary.groups?.first).toEqual([
      { key: 'k0', count: 80, sum: 9_480, mean: 118.5 },
      { key: 'k1', count: 80, sum: 9_560, mean: 119.5 },
      { key: 'k2', count: 80, sum: 9_640, mean: 120.5 },
    ])
  })

  test('are counted by any column', async () => {
    expect(keys(await summarise(content, { groupBy: 'n' }))).toHaveLength(240)
    expect(keys(await summarise(content, { groupBy: 'key' }))).toEqual([
      ['k0', 80],
      ['k1', 80],
      ['k2', 80],
    ])
  })
})

describe('the header', () => {
  test('has names that differ in case only, and each can be asked for', async () => {
    const content = 'Name,name,n\nAnn,ann@x.example,1\nBob,bob@x.example,2\n'
    const summary = await summarise(content, { groupBy: 'name', value: 'n' })
    expect(summary.columns.map(({ name }) => name)).toEqual(['Name', 'name', 'n'])
    expect(summary.groups?.first).toMatchObject([
      { key: 'ann@x.example', sum: 1 },
      { key: 'bob@x.example', sum: 2 },
    ])
    expect(keys(await summarise(content, { groupBy: 'Name' }))).toEqual([
      ['Ann', 1],
      ['Bob', 1],
    ])
  })

  test('has a name for each column, and none twice', async () => {
    const { columns } = await summarise('a,a,,a_1,"",column 3\n1,2,3,4,5,6\n')
    expect(columns.map(({ name }) => name)).toEqual([
      'a',
      'a_2',
      'column 3_1',
      'a_1',
      'column 5',
      'column 3',
    ])
  })

  test('is the first line, whatever it looks like', async () => {
    const summary = await summarise('"1","x\ny"\n1,2\n3,4\n', { groupBy: 'x\ny' })
    expect(summary.columns.map(({ name }) => name)).toEqual(['1', 'x\ny'])
    expect(keys(summary)).toEqual([
      ['2', 1],
      ['4', 1],
    ])
  })

  test('of more than 200 columns is refused', async () => {
    const names = Array.from({ length: 3_500 }, (_, index) => `c${index}`)
    expect(await reasonOf(`${names}\n${names}\n`)).toBe('The file has 3500 columns, more than 200')
  })
})

describe('the delimiter', () => {
  test.each<[string, string]>([
    [',', 'a,b\n1,2\n'],
    [';', 'a;b\n1,5;2,5\n'],
    ['\t', 'a\tb c\n1\t2, 3; 4\n'],
    ['|', 'a|b\n1|2\n'],
    [';', 'price, EUR;name;n\n1;x;2\n2;y, z;3\n'],
    [',', '"a;b;c",d\n1;2,3\n'],
  ])('%j is found in %j', async (delimiter, content) => {
    const summary = await summarise(content)
    expect([summary.delimiter, summary.rejected.rows]).toEqual([delimiter, 0])
  })

  test('is the one that was asked for', async () => {
    const summary = await summarise('a,b;c\n1,2;3\n', { delimiter: ';' })
    expect([summary.delimiter, summary.columns.map(({ name }) => name)]).toEqual([
      ';',
      ['a,b', 'c'],
    ])
    expect((await summarise('a:b\n1:2\n', { delimiter: ':' })).columns.length).toBe(2)
  })

  test.each([';', ',', '\t', '|', ':'])('is said by a first line sep=%s', async (delimiter) => {
    for (const end of ['\r\n', '\n', '\r', '\r\r\n']) {
      const lines = [`sep=${delimiter}`, 'One.Two', '1.2', '3.4', ''].map((line) =>
        line.replace('.', delimiter),
      )
      const summary = await summarise(`\ufeff${lines.join(end)}`, { groupBy: 'One' })
      expect([summary.delimiter, counts(summary)]).toEqual([delimiter, [2, 0]])
      expect(keys(summary)).toEqual([
        ['1', 1],
        ['3', 1],
      ])
    }
    const three = await summarise(`sep=${delimiter}\na.b.c\n1.2.3\n`.replaceAll('.', delimiter))
    expect([counts(three), three.columns.length]).toEqual([[1, 0], 3])
  })
})

describe('the encoding', () => {
  test('may begin with a byte order mark, which is in no name and no value', async () => {
    const summary = await summarise('\ufeffa,b\n\ufeffx,1\n')
    expect([column(summary).name, values(summary)]).toEqual(['a', ['\ufeffx']])
    // The first row of a copy, too.
    expect(values(await summarise('a,b\n\ufeffx,1\nbad\n'))).toEqual(['\ufeffx'])
  })

  test('a header that is not UTF-8 is refused, and names its line', async () => {
    const message = 'The file is not UTF-8: its header in line 1 is not. Save it as UTF-8'
    expect(await reasonOf(Buffer.from('Stra\xdfe,Ort,n\nx,y,1\nz,w,2\nz,w,3\n', 'latin1'))).toBe(
      message,
    )
  })

  test('rows that are not UTF-8 are rejected with their lines, also late ones', async () => {
    const content = Buffer.concat([
      Buffer.from(late('a,b', 'xxxxx,yyyyy')),
      Buffer.from('K\xf6ln,1\nBonn,2\n', 'latin1'),
    ])
    const summary = await summarise(content)
    expect(counts(summary)).toEqual([MANY + 1, 1])
    expect(summary.rejected.first).toEqual([
      { line: MANY + 2, column: null, reason: 'It is not valid UTF-8', text: 'K\ufffdln,1' },
    ])
  })

  test.each([
    ['ASCII', 'a,b\n1,2\n'],
    ['one cell', 'name'],
    ['one line without an end', 'a,b'],
    ['an empty line first', '\r\na,b\r\n1,2\r\n'],
    ['Cyrillic', 'Город;Имя\r\nМосква;Анна\r\n'],
    ['Japanese', '都市,名前\n東京,花子\n'],
    ['Latin letters with accents', 'Stra\u00dfe\tOrt\ne\u0301t\u00e9\tK\u00f6ln\n'],
    ['characters of two units, one of them cut in two', `a,b\n${'😀,x😀\n'.repeat(200)}`],
    ['zero width joiners and soft hyphens', 'a,b\n\u200d,\u00ad\n'],
    ['a long header', `${'column,'.repeat(400)}x\n`],
  ])(
    'UTF-16 and UTF-32 are refused by name in either byte order, with a byte order mark and without: %s',
    async (_, text) => {
      for (const marked of [text, `\ufeff${text}`]) {
        const utf16 = Buffer.from(marked, 'utf16le')
        const utf32 = Buffer.from(
          Uint32Array.from(Array.from(marked), (character) => character.codePointAt(0) as number)
            .buffer,
        )
        for (const bytes of [utf16, Buffer.from(utf16).swap16()])
          expect(await reasonOf(bytes)).toBe('The file is UTF-16: save it as UTF-8')
        for (const bytes of [utf32, Buffer.from(utf32).swap32()])
          expect(await reasonOf(bytes)).toBe('The file is UTF-32: save it as UTF-8')
      }
    },
  )

  test.each([
    ['a ZIP archive', '504b030414000600080000002100'],
    ['an SQLite database', '53514c69746520666f726d6174203300100001010040202000000012'],
    ['a Windows program', '4d5a90000300000004000000ffff0000b800000000000000'],
    ['zeros', '00000000000000000000'],
  ])('%s is binary data, not UTF-16', async (_, hex) => {
    expect(await reasonOf(Buffer.from(hex, 'hex'))).toBe(
      'The file is not a CSV: it holds binary data',
    )
  })

  test('a row with binary data is rejected', async () => {
    const summary = await summarise(late('a,b', 'x,y', 'a\0b,1', 'c,2'))
    expect([counts(summary), summary.rejected.reasons]).toEqual([
      [MANY + 1, 1],
      { 'It holds binary data': 1 },
    ])
  })
})

describe('gzip', () => {
  const text = Buffer.from('a,b\n1,x\n2,y\n')
  const plain = gzipSync(text)
  const withHeader = (flags: number, extra: Buffer) => {
    const header = Buffer.from(plain.subarray(0, 10))
    header.writeUInt8(flags, 3)
    return Buffer.concat([header, extra, plain.subarray(10)])
  }

  test.each<[string, Buffer]>([
    ['FTEXT', withHeader(0x01, Buffer.alloc(0))],
    ['FEXTRA', withHeader(0x04, Buffer.from([2, 0, 7, 7]))],
    ['FNAME', withHeader(0x08, Buffer.from('a.csv\0'))],
    ['FCOMMENT', withHeader(0x10, Buffer.from('a comment\0'))],
    ['20 zero bytes after it', Buffer.concat([plain, Buffer.alloc(20)])],
    ['1 000 zero bytes after it', Buffer.concat([plain, Buffer.alloc(1_000)])],
    [
      'several members, cut within a row',
      Buffer.concat([gzipSync(text.subarray(0, 7)), gzipSync(''), gzipSync(text.subarray(7))]),
    ],
  ])('with %s is read', async (_, bytes) => {
    const summary = await summarise(bytes)
    expect([counts(summary), values(summary, 1)]).toEqual([
      [2, 0],
      ['x', 'y'],
    ])
  })

  test('that holds more than 2 GiB is refused', async () => {
    const member = gzipSync(`${'x'.repeat(500_000)}\n`.repeat(128), { level: 1 })
    const bomb = Buffer.concat([gzipSync('a,b\n'), ...Array.from({ length: 34 }, () => member)])
    expect(await reasonOf(bomb)).toBe('The file is too large when it is unzipped: more than 2 GiB')
  }, 120_000)
})

describe('types', () => {
  test.each<[string, string, Partial<ColumnSummary>]>([
    [
      'a decimal after many integers',
      late('v', '1', '1.75'),
      { type: 'number', max: 1.75, mean: (MANY + 1.75) / (MANY + 1) },
    ],
    [
      'leading zeros after many integers',
      late('v', '1', '007'),
      { type: 'text', min: '007', max: '1' },
    ],
    [
      'a leading zero after many integers',
      late('zip', '94107', '01234'),
      { type: 'text', min: '01234', max: '94107' },
    ],
    [
      'a time of day after many dates',
      late('d', '2024-05-01', '2024-05-01 23:59:00'),
      { type: 'text', distinct: 2 },
    ],
    [
      'a timestamp after many times',
      late('t', '12:00:00', '2024-05-01 13:00:00'),
      { type: 'text', distinct: 2 },
    ],
    [
      'other words after many booleans',
      late('b', 'true', '1', '0', 't', 'no'),
      { type: 'text', distinct: 5 },
    ],
    [
      'a version after many decimals',
      `v\n${'10.5\n'.repeat(30_000)}${'11.0.1\n'.repeat(30_000)}`,
      { type: 'text', distinct: 2 },
    ],
    [
      'nothing but missing values',
      'v,w\n,1\n"",2\n',
      { type: 'text', nulls: 2, distinct: 0, min: null, max: null, top: [] },
    ],
  ])('are by all values: %s', async (_, content, expected) => {
    const summary = await summarise(content)
    expect(column(summary)).toMatchObject(expected)
    expect(summary.rejected.rows).toBe(0)
  })

  test.each<[string, string[]]>([
    ['NO', ['NO', 'NO']],
    ['F', ['F', 'F']],
    ['T, t and true', ['T', 't', 'true']],
    ['True and False', ['True', 'False']],
    ['yes', ['yes', 'no']],
    ['epoch', ['2024-01-01', 'epoch']],
    ['infinity', ['2024-01-01', 'infinity']],
    ['NaN', ['1.5', 'NaN']],
    ['nan and inf', ['1', 'nan', 'inf', '-inf', 'Infinity']],
    ['an exponent without a sign', ['1e5', '2E10']],
    ['hexadecimal digits', ['0x10', '16']],
    ['a plus', ['+1', '1']],
    ['an underscore', ['1_000', '1']],
    ['spaces', [' 1', '1 ', '1']],
    ['no digit before the point, or after it', ['.5', '5.']],
    ['a comma', ['"1,5"', '2']],
    ['leading zeros', ['01.5', '1.5']],
    ['39 digits', ['1'.repeat(39), '2']],
    ['digits that a double does not keep', ['1.5e-07', '0.12345678901234567890']],
    ['NULL', ['NULL', '\\N']],
    ['a day that does not exist', ['2024-02-30', '2024-02-29']],
    ['two-digit years', ['01/02/24', '13/02/24']],
    ['two-digit years with points', ['01.02.24', '13.02.24']],
    ['dates with some zeros', ['01/02/2024', '1/3/2024', '25/3/2024']],
    ['dates with two separators', ['2024-01-02', '2024/01/03']],
    ['dates and timestamps', ['2024-01-02', '2024-01-02T10:00:00']],
    ['several zones', ['2024-01-02T10:00:00Z', '2024-01-02T10:00:00+02:00']],
    ['fractions of different lengths', ['2024-01-02T10:00:00.5', '2024-01-02T10:00:00.25']],
    ['hour 24', ['24:00:00', '12:00:00']],
  ])('values stay what they are: %s', async (_, cells) => {
    const summary = await summarise(`v,w\n${cells.map((cell) => `${cell},x\n`).join('')}`, {
      groupBy: 'v',
    })
    const expected = [...new Set(cells.map((cell) => cell.replace(/^"(.*)"$/, '$1')))].sort()
    expect(column(summary).type).toBe('text')
    expect(values(summary)?.sort()).toEqual(expected)
    expect(
      keys(summary)
        ?.map(([key]) => key)
        .sort(),
    ).toEqual(expected)
  })

  test('numbers of more than 200 digits are texts', async () => {
    const typeOf = async (digits: number) =>
      column(await summarise(`v\n0.1${'0'.repeat(digits - 2)}\n`)).type
    expect([await typeOf(199), await typeOf(200)]).toEqual(['number', 'text'])
  })

  test('a timestamp is shown with all digits of its fraction, also as a quantile', async () => {
    for (const time of [
      '2024-05-01T23:59:00.251',
      '2024-05-01T23:59:00.123457',
      '1900-01-01T00:00:00.9',
    ]) {
      const { min, quantiles, mean, histogram } = column(await summarise(`d\n${time}\n${time}\n`))
      expect([min, quantiles?.['0.5'], mean, histogram?.[0]?.from]).toEqual([
        time,
        time,
        time,
        time,
      ])
    }
  })

  test('true and false are booleans', async () => {
    const summary = await summarise('b\ntrue\nfalse\ntrue\n', { groupBy: 'b' })
    expect(column(summary)).toMatchObject({
      type: 'boolean',
      distinct: 2,
      top: [
        { value: 'true', count: 2 },
        { value: 'false', count: 1 },
      ],
    })
    expect(keys(summary)).toEqual([
      ['true', 2],
      ['false', 1],
    ])
  })

  test('numbers are grouped by how they are written', async () => {
    const summary = await summarise('k,v\n1,10\n2.5,20\n1,30\n1.0,1\n-0,1\n', {
      groupBy: 'k',
      value: 'v',
    })
    expect(column(summary)).toMatchObject({ type: 'number', distinct: 3, min: 0, max: 2.5 })
    expect(summary.groups?.first).toMatchObject([
      { key: '1', count: 2, sum: 40 },
      { key: '-0', sum: 1 },
      { key: '1.0', sum: 1 },
      { key: '2.5', sum: 20 },
    ])
  })

  test('exponents with a sign are numbers', async () => {
    const { columns } = await summarise('v\n1.5e-07\n2E+10\n-3\n0.25\n')
    expect(columns[0]).toMatchObject({ type: 'number', min: -3, max: 2e10, distinct: 4 })
  })
})

describe('exact numbers', () => {
  test('integers beyond 2^53 are told apart', async () => {
    const summary = await summarise('id\n9007199254740992\n9007199254740993\n', { groupBy: 'id' })
    expect(column(summary)).toMatchObject({
      type: 'integer',
      distinct: 2,
      min: 9007199254740992,
      max: '9007199254740993',
    })
    expect(keys(summary)).toEqual([
      ['9007199254740992', 1],
      ['9007199254740993', 1],
    ])
  })

  test('integers of 20 digits make groups of their own', async () => {
    const summary = await summarise('id,n\n12345678901234567890,1\n12345678901234567891,1\n', {
      groupBy: 'id',
    })
    expect(keys(summary)).toEqual([
      ['12345678901234567890', 1],
      ['12345678901234567891', 1],
    ])
  })

  test.each<[string[], unknown]>([
    [['9007199254740993', '-9007199254740992'], 1],
    [
      ['99999999999999999999999999999999999999', '99999999999999999999999999999999999999'],
      '199999999999999999999999999999999999998',
    ],
    [['-99999999999999999999999999999999999999', '99999999999999999999999999999999999998'], -1],
    [['0.1', '0.2'], 0.3],
    [['9007199254740993.01', '0.01'], '9007199254740993.02'],
    [['1.50', '2'], 3.5],
    [['', ''], null],
  ])('the sum of %j is %j', async (numbers, sum) => {
    const content = `k,v\n${numbers.map((number) => `a,${number}\n`).join('')}b,7\n`
    expect((await summarise(content, { groupBy: 'k', value: 'v' })).groups?.first[0]?.sum).toBe(sum)
  })
})

describe('dates', () => {
  const moments = (summary: Summary) =>
    summary.columns.map(({ type, format, min, max }) => [type, format, min, max])

  test.each<[string, string, unknown[][]]>([
    [
      'are decided by another column',
      'start,end\n01/02/2024,01/15/2024\n03/04/2024,03/20/2024\n',
      [
        ['date', 'MM/DD/YYYY', '2024-01-02', '2024-03-04'],
        ['date', 'MM/DD/YYYY', '2024-01-15', '2024-03-20'],
      ],
    ],
    [
      'are decided by late values',
      `d\n${'01/02/2024\n'.repeat(20_500)}${'12/25/2024\n'.repeat(500)}`,
      [['date', 'MM/DD/YYYY', '2024-01-02', '2024-12-25']],
    ],
    [
      'have the day first',
      `d\n${'01/02/2024\n'.repeat(20_500)}25/12/2024\n`,
      [['date', 'DD/MM/YYYY', '2024-02-01', '2024-12-25']],
    ],
    [
      'that nothing decides are texts',
      'd\n01/02/2024\n03/04/2024\n',
      [['text', undefined, '01/02/2024', '03/04/2024']],
    ],
    [
      'that contradict each other are texts',
      'a,b\n25/12/2024,12/25/2024\n',
      [
        ['text', undefined, '25/12/2024', '25/12/2024'],
        ['text', undefined, '12/25/2024', '12/25/2024'],
      ],
    ],
    [
      'of another separator decide nothing',
      'txt,d\n12/25/2020,10-03-2021\n12/26/2020,11-03-2021\n',
      [
        ['date', 'MM/DD/YYYY', '2020-12-25', '2020-12-26'],
        ['text', undefined, '10-03-2021', '11-03-2021'],
      ],
    ],
    [
      'may be written in several ways in one file',
      'txt,d\n12/25/2020,2021-03-10\n',
      [
        ['date', 'MM/DD/YYYY', '2020-12-25', '2020-12-25'],
        ['date', 'YYYY-MM-DD', '2021-03-10', '2021-03-10'],
      ],
    ],
    [
      'may have no zeros',
      'd\n9.5.2024\n31.12.2024\n',
      [['date', 'D.M.YYYY', '2024-05-09', '2024-12-31']],
    ],
    [
      'may have the year first',
      'd\n2024/05/09\n0001/01/01\n',
      [['date', 'YYYY/MM/DD', '0001-01-01', '2024-05-09']],
    ],
    [
      'may have times',
      'd\n12/25/2020 08:30\n01/02/2021 23:59\n',
      [['timestamp', 'MM/DD/YYYY HH:mm', '2020-12-25T08:30:00', '2021-01-02T23:59:00']],
    ],
    [
      'keep their zone and fractions',
      'd\n2024-05-01T23:59:00.500+02:00\n2024-05-01T23:59:00.250+02:00\n',
      [
        [
          'timestamp',
          'YYYY-MM-DDTHH:mm:ss.SSS+02:00',
          '2024-05-01T23:59:00.250+02:00',
          '2024-05-01T23:59:00.500+02:00',
        ],
      ],
    ],
    ['may be times alone', 't\n09:30\n23:00\n', [['time', 'HH:mm', '09:30', '23:00']]],
  ])('%s', async (_, content, expected) => {
    const summary = await summarise(content)
    expect(moments(summary)).toEqual(expected)
    expect(summary.rejected.rows).toBe(0)
  })
})
