import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

const PUBLIC = join(import.meta.dirname, '../../public')
const read = (file: string) => readFileSync(join(PUBLIC, file), 'utf8')

const SHEETS = globSync('**/*.css', { cwd: PUBLIC }).filter((file) => file !== 'theme.css')
const TOKENS = new Set(read('theme.css').match(/--[\w-]+(?=:)/g))
/** Those that a script sets on an element. */
const SCRIPTED = new Set(
  globSync('**/*.js', { cwd: PUBLIC }).flatMap((file) =>
    [...read(file).matchAll(/setProperty\(\s*'(--[\w-]+)'/g)].map(([, name]) => name),
  ),
)

const matches = (file: string, pattern: RegExp) =>
  [...read(file).matchAll(pattern)].map(([text]) => text)

describe('one design language', () => {
  test.each(SHEETS)('%s takes its colours and sizes of text from theme.css', (file) => {
    expect(matches(file, /#[\da-f]{3,8}\b|\b(rgb|hsl|oklch|oklab)a?\(.*\)/gi)).toEqual([])
    expect(matches(file, /\bfont(-size)?:[^;]*\d(px|rem|em)\b[^;]*/g)).toEqual([])
  })

  test.each(SHEETS)('%s names no token that theme.css has not', (file) => {
    const names = [...read(file).matchAll(/var\((--[\w-]+)/g)].map(([, name = '']) => name)
    expect(names.filter((name) => !TOKENS.has(name) && !SCRIPTED.has(name))).toEqual([])
  })
})
