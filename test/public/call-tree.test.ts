import { describe, expect, test } from 'vitest'

// The page's scripts have a type check of their own.
const { buildTree, layOut, search } = await import(
  new URL('../../public/panels/profile/call-tree.js', import.meta.url).href
)

const FOLDER = 'file:///srv/shop/'

/** A function and what it called, by name; `samples` are taken 1 ms apart. */
interface Call {
  name: string
  url?: string
  calls?: Call[]
}

/** @param samples the names of the functions that were sampled, in their order. */
function toProfile(calls: Call[], samples: string[]) {
  const nodes: object[] = []
  const ids = new Map<string, number>()
  const add = ({ name, url = `${FOLDER}src/${name}.ts`, calls = [] }: Call): number => {
    const id = nodes.length + 1
    const callFrame = { functionName: name, url, lineNumber: 9, columnNumber: 3 }
    const node = { id, callFrame, children: [] as number[] }
    nodes.push(node)
    // The last of several.
    ids.set(name, id)
    node.children = calls.map(add)
    return id
  }
  add({ name: '(root)', url: '', calls })
  return {
    nodes,
    startTime: 5_000,
    endTime: 5_000 + (samples.length + 1) * 1_000,
    samples: samples.map((name) => ids.get(name)),
    timeDeltas: samples.map(() => 1_000),
    folder: FOLDER,
  }
}

interface Frame {
  callee: { name: string; place: string; category: string; selfMs: number; totalMs: number }
  children: Frame[]
  selfMs: number
  totalMs: number
}

/** `name self/total`, and the same for what it called. */
const toText = ({ callee, selfMs, totalMs, children }: Frame): unknown[] => [
  `${callee.name} ${selfMs}/${totalMs}`,
  ...children.map(toText),
]

const BUSY: Call[] = [
  { name: 'serve', calls: [{ name: 'parse' }, { name: 'render', calls: [{ name: 'escape' }] }] },
  { name: '(idle)', url: '' },
]

describe('a call tree', () => {
  test('adds up samples by path of calls, the longest first, without those of an idle thread', () => {
    const samples = ['parse', '(idle)', 'escape', 'escape', '(idle)', 'render', 'serve']
    const { root, busyMs, idleMs } = buildTree(toProfile(BUSY, samples))
    expect(toText(root)).toEqual([
      '(root) 0/5',
      ['serve 1/5', ['render 1/3', ['escape 2/2']], ['parse 1/1']],
    ])
    expect([busyMs, idleMs]).toEqual([5, 2])
  })

  test('of a worker thread has no native code of its own, because it waits in it', () => {
    const profile = toProfile([...BUSY, { name: '(program)', url: '' }], ['parse', '(program)'])
    expect(buildTree(profile, 'thread')).toMatchObject({ busyMs: 1, idleMs: 1 })
    expect(buildTree(profile)).toMatchObject({ busyMs: 2, idleMs: 0 })
  })

  test('gives a sample the time until the next one', () => {
    const profile = toProfile(BUSY, ['parse', 'render', 'parse'])
    profile.timeDeltas = [1_000, 4_000, 1_000]
    profile.endTime = 5_000 + 6_000 + 500
    expect(toText(buildTree(profile).root)).toEqual([
      '(root) 0/5.5',
      ['serve 0/5.5', ['parse 4.5/4.5'], ['render 1/1']],
    ])
  })

  test('does not blame a function for the time without a core, in which nothing is sampled', () => {
    const profile = toProfile(BUSY, ['parse', 'render'])
    profile.timeDeltas = [1_000, 250_000]
    profile.endTime = 5_000 + 251_000 + 1_000
    const { busyMs, withoutCoreMs } = buildTree(profile)
    expect([busyMs, withoutCoreMs]).toEqual([11, 240])
  })

  test('is not confused by a clock that goes back', () => {
    const profile = toProfile(BUSY, ['parse', 'render', 'parse'])
    profile.timeDeltas = [1_000, -300, 1_300]
    expect(buildTree(profile).busyMs).toBeCloseTo(3.3)
  })

  test('merges the nodes of one function below the same caller, but not those of namesakes', () => {
    const twice = [
      { name: 'serve', calls: [{ name: 'parse' }] },
      { name: 'serve', calls: [{ name: 'parse' }, { name: 'render' }] },
      { name: 'serve', url: `${FOLDER}src/other.ts` },
    ]
    const profile = toProfile(twice, ['parse', 'render'])
    // Samples of each of the two.
    profile.samples = [3, 5, 6, 7]
    profile.timeDeltas = [1_000, 1_000, 1_000, 1_000]
    profile.endTime = 10_000
    expect(toText(buildTree(profile).root)).toEqual([
      '(root) 0/4',
      ['serve 0/3', ['parse 2/2'], ['render 1/1']],
      ['serve 1/1'],
    ])
  })

  test('of a thread that was idle all the time is empty', () => {
    const { root, callees, busyMs } = buildTree(toProfile(BUSY, ['(idle)', '(idle)']))
    expect([root.children, callees, busyMs]).toEqual([[], [], 0])
    expect(layOut(root, 1_000)).toEqual([])
  })
})

describe('functions', () => {
  test('are listed by their own time; one that calls itself counts once', () => {
    const recursive = [{ name: 'walk', calls: [{ name: 'leaf' }, { name: 'walk' }] }]
    const { callees } = buildTree(toProfile(recursive, ['leaf', 'walk', 'walk']))
    expect(
      callees.map(({ name, selfMs, totalMs }: Frame['callee']) => [name, selfMs, totalMs]),
    ).toEqual([
      ['walk', 2, 3],
      ['leaf', 1, 1],
    ])
  })

  test.each([
    [`${FOLDER}src/a.ts`, 'own', 'src/a.ts:10'],
    [`${FOLDER}src/%C3%A4.ts`, 'own', 'src/ä.ts:10'],
    [`${FOLDER}node_modules/hono/dist/hono.js`, 'package', 'node_modules/hono/dist/hono.js:10'],
    [`${FOLDER}100%.js`, 'own', '100%.js:10'],
    ['file:///opt/tool/a.js', 'package', '/opt/tool/a.js:10'],
    ['wasm://wasm/1f2e', 'own', 'wasm://wasm/1f2e:10'],
    ['node:net', 'node', 'node:net:10'],
    ['', 'native', ''],
  ])('of %j are %s code at %j', (url, category, place) => {
    const { callees } = buildTree(toProfile([{ name: 'run', url }], ['run']))
    expect(callees[0]).toMatchObject({ category, place })
  })

  test('without a name are anonymous', () => {
    const { callees } = buildTree(toProfile([{ name: '' }], ['']))
    expect(callees[0].name).toBe('(anonymous)')
  })
})

interface Bar {
  frame: Frame
  left: number
  width: number
  row: number
}

const toBars = (bars: Bar[]) =>
  bars.map(({ frame, left, width, row }) => [frame.callee.name, row, left, width])

describe('bars', () => {
  const { root } = buildTree(toProfile(BUSY, ['parse', 'escape', 'escape', 'serve']))

  test('are as wide as their time, below what called them', () => {
    expect(toBars(layOut(root, 400))).toEqual([
      ['(root)', 0, 0, 400],
      ['serve', 1, 0, 400],
      ['render', 2, 0, 200],
      ['escape', 3, 0, 200],
      ['parse', 2, 200, 100],
    ])
  })

  test('of a frame that is zoomed into have the whole width, below all that called it', () => {
    const render = root.children[0].children[0]
    expect(toBars(layOut(render, 400))).toEqual([
      ['(root)', 0, 0, 400],
      ['serve', 1, 0, 400],
      ['render', 2, 0, 400],
      ['escape', 3, 0, 400],
    ])
  })

  test('narrower than half a pixel are left out, and with them what they called', () => {
    expect(toBars(layOut(root, 1.9)).map(([name]) => name)).toEqual([
      '(root)',
      'serve',
      'render',
      'escape',
    ])
  })

  test('are not more than anyone can see, of 100,000 nodes', () => {
    const leaves = Array.from({ length: 1_000 }, (_, index) => ({ name: `leaf${index}` }))
    const calls = Array.from({ length: 100 }, (_, index) => ({ name: `f${index}`, calls: leaves }))
    const profile = toProfile(calls, [])
    profile.samples = profile.nodes.map((_, index) => index + 1)
    profile.timeDeltas = profile.nodes.map(() => 1_000)
    profile.endTime = 5_000 + profile.nodes.length * 1_000
    const tree = buildTree(profile)
    expect(profile.nodes.length).toBeGreaterThan(100_000)
    expect(layOut(tree.root, 1_000).length).toBeLessThan(2_000)
  })

  test('reach a hundred rows below the frame that is zoomed into', () => {
    const deep = Array.from({ length: 150 }, (_, index) => `f${index}`).reduceRight(
      (call: Call | undefined, name) => ({ name, calls: call ? [call] : [] }),
      undefined,
    ) as Call
    const { root } = buildTree(toProfile([deep], ['f149']))
    expect(layOut(root, 500)).toHaveLength(101)
    expect(layOut(root.children[0], 500)).toHaveLength(102)
  })
})

describe('a search', () => {
  const tree = buildTree(toProfile(BUSY, ['parse', 'escape', 'escape', 'serve']))
  const find = (text: string) => {
    const { matches, totalMs } = search(tree, text)
    return [[...matches].map(({ name }) => name).sort(), totalMs]
  }

  test('finds names and places in any case, and counts nested matches once', () => {
    expect(find(' RENDER ')).toEqual([['render'], 2])
    expect(find('src/e')).toEqual([['escape'], 2])
    expect(find('r')).toEqual([['escape', 'parse', 'render', 'serve'], 4])
  })

  test('finds nothing for no text, and for what is not there', () => {
    expect([find('  '), find('nowhere')]).toEqual([
      [[], 0],
      [[], 0],
    ])
  })
})
