import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { until } from './until.ts'

const ROOT = join(import.meta.dirname, '../..')
const { PATH, NODE_COMPILE_CACHE } = process.env

/** Node with the service's V8 flags. */
const NODE = join(ROOT, 'bin/node')

/** For `nodeOptions`: prints what the process loads, and where it connects to. */
export const RECORD_LOADS = ['--import', join(import.meta.dirname, 'record-loads.ts')]

/**
 * A `node` of its own that runs a file of the project, killed at the end of the test if it still
 * runs.
 */
export function useProcess(...parameters: Parameters<typeof startProcess>) {
  const started = startProcess(...parameters)
  onTestFinished(() => void started.child.kill('SIGKILL'))
  return started
}

/**
 * The same, for whoever kills it himself.
 *
 * @param maxFiles how many files and connections it may have open at once.
 */
export function startProcess(
  file: string,
  env: NodeJS.ProcessEnv = {},
  nodeOptions: string[] = [],
  maxFiles?: number,
  args: string[] = [],
) {
  const limit = maxFiles === undefined ? '' : `ulimit -n ${maxFiles} && `
  const child = spawn(
    'sh',
    ['-c', `${limit}exec "$0" "$@"`, NODE, ...nodeOptions, join(ROOT, file), ...args],
    {
      cwd: ROOT,
      env: {
        PATH,
        NODE_COMPILE_CACHE,
        NODE_ENV: 'test',
        COMPUTE_THREADS: '1',
        PORT: '0',
        OPS_PORT: '0',
        // On a busy machine any statement is slow.
        SLOW_QUERY_MS: '0',
        ...env,
      },
    },
  )
  const chunks: string[] = []
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => chunks.push(String(chunk)))
  const output = () => chunks.join('')
  const exitCode = exitCodeOf(child)
  let hasEnded = false
  void exitCode.then(() => {
    hasEnded = true
  })
  const printed = async (pattern: RegExp) => {
    const find = () => {
      const match = output().match(pattern)
      if (!match && hasEnded) throw new Error('It has ended')
      return match
    }
    try {
      return await until(find, `it prints ${pattern}`)
    } catch (error) {
      throw new Error(`${(error as Error).message}; it printed:\n${output()}`)
    }
  }
  return {
    child,
    /** What it has printed so far, on both streams. */
    output,
    exitCode,
    /** The match, once it has printed what matches. Fails when it ends before, with its output. */
    printed,
    /** The URL that it prints once it listens. */
    url: async () => (await printed(/http:\/\/localhost:\d+/))[0],
    /** The URL of its ops port, once it listens. */
    opsUrl: () => output().match(/"ops":"(.*?)"/)?.[1] ?? '',
  }
}

async function exitCodeOf(child: ChildProcess): Promise<number | null> {
  const [code] = await once(child, 'close')
  return code
}

/** Whether there is such a process: a zombie is gone. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return process.platform !== 'linux' || !/\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** The processes that a process has started; none where there is no `/proc`. */
export const childrenOf = (pid: number): number[] =>
  process.platform === 'linux'
    ? readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
        readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8')
          .split(' ')
          .filter(Boolean)
          .map(Number),
      )
    : []
