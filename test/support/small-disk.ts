import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/**
 * A directory on a disk of its own, of `size` (`2m`), until the running test ends. Only root on
 * Linux may make one.
 */
export async function useSmallDisk(size: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'offloop-disk-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', directory])
  onTestFinished(async () => {
    execFileSync('umount', ['--lazy', directory])
    await rm(directory, { recursive: true })
  })
  return directory
}

useSmallDisk.isPossible = process.getuid?.() === 0 && process.platform === 'linux'
