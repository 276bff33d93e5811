import { type Block, formatCause } from './blocking-frame.ts'
import { Watchdog } from './watchdog.ts'

/**
 * For tests: returns the result of `code`, or fails if it blocked the event loop for longer than
 * `maxMs`. Warm up code that compiles at its first call.
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
    maxSamples: Number.POSITIVE_INFINITY,
  })
  watchdog.start()
  const result = await code()
  await watchdog.flush()
  if (blocks.length > 0) throw new Error(describeBlocks(blocks, maxMs))
  return result
}

export const describeBlocks = (blocks: readonly Block[], maxMs: number) =>
  [
    `Expected the event loop not to be blocked for longer than ${maxMs} ms:`,
    ...blocks.map((block) => `  ${block.blockedMs} ms${formatCause(block)}`),
  ].join('\n')
