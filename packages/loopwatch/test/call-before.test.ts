import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { lineOfCallBefore } from '../call-before.ts'

/** In each of them `now` is the call that is seen, and `culprit` is the one that was before it. */
test.each([
  [
    'the statement before',
    [
      'const found: string = culprit(1)',
      'const size = found.length + 1',
      'return now(found, size)',
    ],
  ],
  [
    'several lines before',
    ['other(1)', 'const found = culprit(1)', 'let n = 0', 'n += 1', 'now(n)'],
  ],
  ['among the arguments', ['other(1)', 'return now(', '  ")",', '  culprit(text),', ')']],
  [
    'not in a function that is only made',
    ['culprit(1)', 'const later = () => other(1)', 'return now(later)'],
  ],
  ['a method', ['other(1)', 'const items = await this.reader.culprit(1)', 'return c.now(items)']],
  ['in a loop', ['for (const item of items) {', '  culprit(item)', '  now(item)', '}']],
])('the call before is found: %s', async (_, lines) => {
  const text = [
    "import { other, type Other } from './other.ts'",
    '',
    'export const limit = before(import.meta.url)',
    '',
    'export default class Service {',
    '  async handle(c: Other, text: string) {',
    ...lines,
    '  }',
    '}',
  ]
  const path = await useFile(text.join('\n'))
  const line = text.findIndex((each) => each.includes('now('))
  const place = { line: line + 1, column: (text[line]?.indexOf('now(') ?? 0) + 1 }
  expect(lineOfCallBefore(path, place)).toBe(
    text.findIndex((each) => each.includes('culprit(')) + 1,
  )
})

test('there is none before the first', async () => {
  const path = await useFile('function first() {\n  return now(1)\n}\nother(1)\n')
  expect(lineOfCallBefore(path, { line: 2, column: 10 })).toBeUndefined()
})

async function useFile(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-source-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const path = join(folder, 'source.ts')
  await writeFile(path, text)
  return path
}
