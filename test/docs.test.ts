import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'

const ROOT = join(import.meta.dirname, '..')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')

const DOCUMENTS = globSync(['*.md', 'docs/**/*.md', 'packages/*/README.md', 'bench/README.md'], {
  cwd: ROOT,
})

/** Without code blocks, where brackets and backticks mean something else. */
const readProse = (file: string) => read(file).replace(/^```[\s\S]*?^```|^ {4}.*$/gm, '')

describe('links', () => {
  test.each(DOCUMENTS)('of %s lead somewhere', (file) => {
    const links = [...readProse(file).matchAll(/\]\((?!\w+:)([^)\s]+)\)/g)].map(([, to = '']) => to)
    expect(links.filter((link) => !resolves(link, file))).toEqual([])
  })
})

function resolves(link: string, from: string): boolean {
  const [path = '', anchor] = link.split('#')
  const target = path === '' ? from : relative(ROOT, join(ROOT, dirname(from), path))
  if (!existsSync(join(ROOT, target))) return false
  return anchor === undefined || anchors(target).includes(anchor)
}

/** As GitHub makes them of headings. */
const anchors = (file: string) =>
  [...readProse(file).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  )

describe('what stands in backticks exists', () => {
  const scripts = Object.keys(JSON.parse(read('package.json')).scripts)
  const code = globSync(['{src,packages,scripts,public,test}/**/*.{ts,js}'], {
    cwd: ROOT,
    exclude: (path) => path.includes('node_modules'),
  })
    .map(read)
    .join('\n')

  test.each(['AGENTS.md', 'README.md'])('in %s', (file) => {
    const quoted = [...readProse(file).matchAll(/`([^`\n]+)`/g)].map(([, text = '']) => text)
    const missing = quoted.filter((text) => !isPlaceholder(text) && !exists(text))
    expect(missing).toEqual([])
  })

  /** What a reader fills in, a web address, a folder of local data, or code of several words. */
  function isPlaceholder(text: string) {
    return /[A-Z]{3,}\b(?!_)|…|thing|^\/|^https?:|^\.data/.test(text) && !text.startsWith('npm ')
  }

  function exists(text: string): boolean {
    const [, script] = text.match(/^npm (?:run )?([\w:]+)/) ?? []
    if (script) return scripts.includes(script) || ['test', 'start', 'install'].includes(script)
    if (/^[\w.-]+\.(ts|js|md|json|yml|html)$/.test(text))
      return globSync([text, `{src,test}/**/${text}`], { cwd: ROOT }).length > 0
    if (/^[\w.@-]*[/.][\w./*@-]*$/.test(text) && !/^[a-z]+\.[a-z]+$/i.test(text))
      return globSync([text, `src/${text}`], { cwd: ROOT }).length > 0
    const names = text.match(/^[A-Za-z_]\w*(?=[.(]|$)|(?<=\.)\w+(?=\(|$)/g) ?? []
    return names.every((name) => new RegExp(`\\b${name}\\b`).test(code))
  }
})
