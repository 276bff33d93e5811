import { type Block, formatFrame } from './blocking-frame.ts'
import { Watchdog } from './watchdog.ts'

/**
 * For tests: runs `code`, returns its awaited result, and fails if the event loop was blocked for
 * longer than `maxMs` meanwhile. Run what is compiled at its first call once before.
 *
 *     await expectNonBlocking(() => app.request('/v1/orders'), { maxMs: 50 })
 *
 * @throws Error naming the functions and lines.
 */
export async function expectNonBlocking<Result>(
  code: () => Result | Promise<Result>,
  { maxMs = 50 }: { maxMs?: number } = {},
): Promise<Result> {
  const blocks: Block[] = []
  const onBlock = (block: Block) => blocks.push(block)
  await using watchdog = await Watchdog.open({
    thresholdMs: maxMs,
    onBlock,
    sampleEveryBlock: true,
  })
  watchdog.start()
  const result = await code()
  await watchdog.flush()
  if (blocks.length > 0) throw new Error(describeBlocks(blocks, maxMs))
  return result
}

/** A line for each. */
export const describeBlocks = (blocks: readonly Block[], maxMs: number) =>
  [
    `Expected the event loop not to be blocked for longer than ${maxMs} ms:`,
    ...blocks.map((block) => `  ${block.blockedMs} ms by ${formatFrame(block)}`),
  ].join('\n')
