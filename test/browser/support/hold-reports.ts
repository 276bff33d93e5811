import { onTestFinished } from 'vitest'
import { childrenOf, isAlive } from '../../support/process.ts'
import { accept, untilFinished } from '../../support/reports.ts'
import type { startSite } from './site.ts'

/**
 * Holds the process that summarises reports, so that those which follow run until it is released, or
 * until they are cancelled, however long the page takes.
 */
export async function holdReports({ url, operator, pid }: Site): Promise<() => void> {
  // The first report starts the process.
  const { id } = await accept(url, `a,b\n1,${crypto.randomUUID()}\n`, { headers: operator })
  await untilFinished(url, id, undefined, operator)
  const held = childrenOf(pid())
  for (const child of held) process.kill(child, 'SIGSTOP')
  const release = () => {
    for (const child of held) if (isAlive(child)) process.kill(child, 'SIGCONT')
  }
  onTestFinished(release)
  return release
}

type Site = Awaited<ReturnType<typeof startSite>>
