/** A file as somebody may upload it. */
interface RandomCsv {
  bytes: Buffer
  delimiter: string
  /** Asked for, because the file does not tell it. */
  requested: string | null
  groupBy: number
}

type Random = () => number
type Maker = (random: Random) => string

const DELIMITERS = [',', ';', '\t', '|']
const LINE_ENDS = ['\n', '\r\n', '\r', '\r\r\n']
const TEXTS = [
  ...[
    "'s-Gravenhage",
    "Jones'",
    '#FF0000',
    'say "hi"',
    '"',
    '""',
    ' padded ',
    'a,b;c|d\te',
    'two\nlines',
    'two\r\nlines',
    'x\ry',
  ],
  ...[
    'NO',
    'F',
    'T',
    't',
    'True',
    'TRUE',
    'epoch',
    'NaN',
    'nan',
    'Infinity',
    'inf',
    'NULL',
    '\\N',
    '0x10',
    '1e5',
    '1E5',
    '+1',
    '1_000',
  ],
  ...[
    '-0',
    '007',
    '.5',
    '5.',
    '1,5',
    ' 1',
    '1 ',
    '--1',
    '-',
    '1.2.3',
    '1e-05x',
    '12:00',
    '24:00:00',
    '2024-02-30',
    '2024-1-05',
    '31/02/2024',
  ],
  ...[
    'Zürich',
    '東京',
    '😀',
    '\u00a0',
    '\ufeff',
    'e\u0301',
    '=1+1',
    '\\',
    '\\"',
    '{}',
    'sep=;',
    'x'.repeat(300),
    '2024-05-01T10:00',
    '1/2/24',
  ],
  ...[
    '12%',
    '$1',
    '1,234.5',
    '-0.0',
    '00',
    '1e400',
    '1e-05',
    '9'.repeat(38),
    '9'.repeat(39),
    '1 May 2024',
    '2024-W01',
    '10:30 PM',
  ],
]
/** Each set is the values of a column. */
const WORDS = [
  ['true', 'false'],
  ['TRUE', 'FALSE'],
  ['True', 'False'],
  ['t', 'f'],
  ['yes', 'no'],
  ['Y', 'N'],
  ['1', '0'],
  ['NULL', 'null', 'NA', 'N/A', 'None', '-'],
  ['0.0', '-0', '0', '-0.00'],
  ['1.7976931348623157e+308', '5e-324', '-2.5e-05'],
  ['NaN', 'inf', '-inf', '1'],
]
const LETTERS = ['x', 'é', '語', '😀', '"', '\n', ' ']
const YEARS = ['0001', '0099', '1582', '1969', '1970', '2000', '2024', '2038', '9999']
/** Becomes a byte that no UTF-8 has. */
const BROKEN = '\ue000'
const TOO_LONG = 1_000_001
/** Binary data before that are the whole file's fault. */
const START_BYTES = 1_000
const MANY_ROWS = 6_000

function randomFrom(seed: number): Random {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const below = (random: Random, limit: number) => Math.floor(random() * limit)
const pick = <Item>(random: Random, items: readonly Item[]) =>
  items[below(random, items.length)] as Item
const digits = (random: Random, count: number) =>
  Array.from({ length: count }, () => below(random, 10)).join('')
const pad = (value: number, length = 2) => String(value).padStart(length, '0')

function whole(random: Random, most: number): string {
  const number = `${1 + below(random, 9)}${digits(random, below(random, most))}`
  return random() < 0.1 ? '0' : random() < 0.3 ? `-${number}` : number
}

/** A date of a year with four digits, in an order, with a separator and zeros of a column's own. */
function dates(random: Random): Maker {
  const order = pick(random, ['ymd', 'dmy', 'mdy'])
  const separator = pick(random, ['-', '-', '/', '.'])
  const length = random() < 0.7 ? 2 : 1
  const maxDay = random() < 0.3 ? 12 : 31
  const maxMonth = random() < 0.9 ? 12 : 13
  return (random) => {
    const [month, day] = [
      pad(1 + below(random, maxMonth), length),
      pad(1 + below(random, maxDay), length),
    ]
    const year = random() < 0.05 ? pick(random, YEARS) : pad(1900 + below(random, 200), 4)
    return { ymd: [year, month, day], dmy: [day, month, year], mdy: [month, day, year] }[
      order
    ]?.join(separator) as string
  }
}

function timestamps(random: Random): Maker {
  const date = dates(random)
  const separator = pick(random, ['T', ' '])
  const fraction = pick(random, [0, 0, 1, 3, 6, 7])
  const hasSeconds = random() < 0.8
  const zone = pick(random, ['', '', 'Z', '+02:00', '-0330', '+00'])
  return (random) => {
    const [hour, minute, second] = [below(random, 24), below(random, 60), below(random, 60)].map(
      (part) => pad(part),
    )
    const seconds = hasSeconds
      ? `:${second}${fraction > 0 ? `.${digits(random, fraction)}` : ''}`
      : ''
    return `${date(random)}${separator}${hour}:${minute}${seconds}${zone}`
  }
}

/** What the values of a column have in common. */
const KINDS: ((random: Random) => Maker)[] = [
  () => (random) => whole(random, 4),
  () => (random) => whole(random, 40),
  () => (random) => whole(random, 17),
  () => (random) =>
    pick(random, [
      '9007199254740992',
      '9007199254740993',
      '-9007199254740993',
      '12345678901234567890',
    ]),
  () => (random) => `${whole(random, 5)}.${digits(random, 2)}`,
  () => (random) =>
    random() < 0.5
      ? whole(random, 3)
      : `${whole(random, 3)}.${digits(random, 1 + below(random, 4))}`,
  () => (random) => `${whole(random, 25)}.${digits(random, 1 + below(random, 14))}`,
  () => (random) => String((random() - 0.5) * 10 ** (below(random, 30) - 15)),
  () => (random) =>
    `${whole(random, 1)}.${digits(random, 3)}e${pick(random, ['-', '+'])}${pad(below(random, 40))}`,
  (random) => {
    const words = pick(random, WORDS)
    return (random) => pick(random, words)
  },
  longTexts,
  () => (random) => pick(random, TEXTS),
  () => (random) => `word ${below(random, 5)}`,
  () => (random) => pick(random, ['', '"']) + digits(random, 3),
  dates,
  dates,
  timestamps,
  () => (random) => `${pad(below(random, 24))}:${pad(below(random, 60))}:${pad(below(random, 60))}`,
]

/** Texts that differ late, if at all: longer than is ever shown of them. */
function longTexts(random: Random): Maker {
  const start = pick(random, LETTERS).repeat(below(random, 700))
  return (random) => start + pick(random, LETTERS).repeat(below(random, 400)) + below(random, 3)
}

/** The same file for the same seed. */
export function randomCsv(seed: number): RandomCsv {
  const random = randomFrom(seed)
  for (let warmUp = 0; warmUp < 3; warmUp++) random()
  const delimiter = pick(random, DELIMITERS)
  const isLarge = random() < 0.002
  const columns = random() < 0.005 ? pick(random, [60, 199, 200]) : 1 + below(random, 6)
  const rows = isLarge ? MANY_ROWS : below(random, pick(random, [1, 4, 12, 40]))
  const [lineEnd, otherEnd] = [
    pick(random, LINE_ENDS),
    random() < 0.2 ? pick(random, LINE_ENDS) : undefined,
  ]
  const isRagged = random() < 0.3
  const quoting = pick(random, [0, 0.1, 1])
  const missing = pick(random, [0, 0.1, 0.6])
  const late = random() < 0.2 ? pick(random, TEXTS) : undefined
  const breaking = random() < 0.1 ? 0.1 : 0
  const makers = Array.from({ length: columns }, () => pick(random, KINDS)(random))
  if (isLarge) makers[0] = longTexts(random)
  const names = makers.map((_, index) =>
    pick(random, [
      `c${index}`,
      `Column ${index}`,
      'n',
      'N',
      'n_1',
      '',
      'a "b"',
      `größe ${index}`,
      'x\ny',
    ]),
  )

  const field = (text: string) => {
    const isStray = text.includes('"') && !text.startsWith('"') && random() < 0.5
    const needsQuotes =
      /[\r\n]/.test(text) || text.includes(delimiter) || (text.includes('"') && !isStray)
    return needsQuotes || random() < quoting ? `"${text.replaceAll('"', '""')}"` : text
  }
  const broken = () => {
    if (random() < 0.01) return 'y'.repeat(TOO_LONG)
    const isLate = lines.reduce((length, line) => length + line.length, 0) > START_BYTES
    return isLate && random() < 0.5 ? 'a\0b' : `a${BROKEN}b`
  }
  const end = () => (otherEnd !== undefined && random() < 0.3 ? otherEnd : lineEnd)
  // A header without a name would be a blank line.
  const header = names.length === 1 && names[0] === '' ? '"id"' : names.map(field).join(delimiter)
  const lines = [header + end()]
  for (let row = 0; row < rows; row++) {
    const values = makers.map((make) => (random() < missing ? '' : make(random)))
    if (late !== undefined && row === rows - 1) values[below(random, columns)] = late
    if (isRagged && random() < 0.2) values.push(...pick(random, [[''], ['x'], ['1', '2']]))
    if (isRagged && random() < 0.2) values.length = below(random, values.length)
    if (random() < breaking) values[below(random, values.length)] = broken()
    lines.push(values.map(field).join(delimiter) + end())
  }
  let text = lines.join('')
  if (random() < 0.2) text = text.replace(/[\r\n]+$/, '')
  const start = random()
  const named = start < 0.1 ? `sep=${delimiter}${lineEnd}` : ''
  const isPlain =
    columns > 1 &&
    !isRagged &&
    breaking === 0 &&
    !DELIMITERS.some((each) => each !== delimiter && text.includes(each))
  return {
    bytes: toBytes((random() < 0.1 ? '\ufeff' : '') + named + text),
    delimiter,
    requested: named === '' && !(isPlain && random() < 0.5) ? delimiter : null,
    groupBy: below(random, columns),
  }
}

function toBytes(text: string): Buffer {
  const broken = Buffer.from(BROKEN).toString('latin1')
  return Buffer.from(Buffer.from(text).toString('latin1').replaceAll(broken, '\xff'), 'latin1')
}

/** Text of nothing but what a reader of CSV may trip over. */
export function randomSoup(seed: number): Buffer {
  const random = randomFrom(seed)
  const parts = [
    '"',
    '""',
    ',',
    ',',
    '\n',
    '\n',
    '\r\n',
    '\r',
    'a',
    '1',
    ' ',
    'é',
    '"a"',
    '"x\ny"',
    '#',
    "'",
  ]
  return Buffer.from(
    `h,i\n${Array.from({ length: below(random, 60) }, () => pick(random, parts)).join('')}`,
  )
}
