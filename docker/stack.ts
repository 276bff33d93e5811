import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { devNull } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

const ROOT = join(import.meta.dirname, '..')
/** Long enough to pull and build images over a slow line. */
const UP_TIMEOUT_MS = 15 * 60_000
const COMMAND_TIMEOUT_MS = 90_000
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024
const WAIT_TIMEOUT_MS = 60_000
const POLL_MS = 50
const LOG_LINES = 100
const NEVER = new AbortController().signal

/**
 * A fresh clone's settings, whatever this shell or an `.env` says, but on a port that is hardly
 * ever taken.
 */
const SETTINGS = {
  PORT: '13580',
  PORTS: '',
  NODE_ENV: '',
  // feature: primes
  DEMO_INLINE: '',
  // /feature
  MYSQL_PASSWORD: '',
  MYSQL_ROOT_PASSWORD: '',
  LOG_LEVEL: '',
  LOG_FORMAT: '',
}

/** How a command ended, and what it wrote. */
export interface Ended {
  code: number
  stdout: string
  stderr: string
}

interface Options {
  timeout?: number
  signal?: AbortSignal
  settings?: Record<string, string>
}

/**
 * `docker-compose.yml` under a project name of its own, apart from the one that a developer may
 * have running.
 */
export class Stack {
  /** As the README names it. */
  readonly url = `http://localhost:${SETTINGS.PORT}`
  readonly #project: string
  readonly #interrupted: AbortSignal
  readonly #profile: string

  /** @param interrupted when it aborts, every command ends but `remove()`. */
  constructor(project: string, interrupted: AbortSignal, profile = '') {
    this.#project = project
    this.#interrupted = interrupted
    this.#profile = profile
  }

  /** Starts everything in its order. */
  async up(options: string[] = [], settings: Record<string, string> = {}): Promise<void> {
    await this.#compose(['up', '--detach', ...options], { timeout: UP_TIMEOUT_MS, settings })
  }

  /** SIGTERM to a service, and SIGKILL when its grace period is over. */
  async stop(service: string): Promise<void> {
    await this.#compose(['stop', service])
  }

  /** SIGKILL to a service. */
  async kill(service: string): Promise<void> {
    await this.#compose(['kill', service])
  }

  /** Starts a service again that was stopped or killed. */
  async start(service: string): Promise<void> {
    await this.#compose(['start', service])
  }

  /** Removes the containers; the data stays. */
  async down(): Promise<void> {
    await this.#compose(['down'])
  }

  /** Removes everything: containers, network, data and the images that were built. */
  async remove(): Promise<void> {
    await this.#compose(['down', '--volumes', '--rmi=local', '--remove-orphans'], { signal: NEVER })
  }

  /** Runs a command in a running service. */
  exec(service: string, ...command: string[]): Promise<Ended> {
    return ended(this.#compose(['exec', '-T', service, ...command]))
  }

  /** One field of a service's container, in the words of a Go template. */
  async inspect(service: string, field: string): Promise<string> {
    return docker(['inspect', `--format={{${field}}}`, ...(await this.containers(service))])
  }

  /** Which services run. */
  async services(): Promise<string[]> {
    return (await this.#compose(['ps', '--services'])).split('\n')
  }

  /** The ids of a service's containers. */
  async containers(service: string): Promise<string[]> {
    return (await this.#compose(['ps', '--all', '--quiet', service])).split('\n')
  }

  /** What a service logged, one JSON object a line. */
  async logOf(service: string): Promise<Record<string, unknown>[]> {
    const containers = await this.containers(service)
    const texts = await Promise.all(containers.map((id) => docker(['logs', id])))
    return texts.flatMap((text) => text.split('\n')).map((line) => JSON.parse(line))
  }

  /** The line that a service logs: those of the last moment may not have reached Docker. */
  async line(
    service: string,
    isIt: (line: Record<string, unknown>) => boolean,
  ): Promise<Record<string, unknown>> {
    let line: Record<string, unknown> | undefined
    await this.eventually(`a line of ${service} is logged`, async () => {
      line = (await this.logOf(service)).find(isIt)
      return line !== undefined
    })
    return line ?? {}
  }

  /** The tags of the images that were built. */
  async images(): Promise<string[]> {
    const images = await docker([
      'images',
      `--filter=reference=${this.#project}*`,
      '--format={{.Repository}}',
    ])
    return images.split('\n')
  }

  /** The end of everyone's log, for people. */
  logs(): Promise<string> {
    return this.#compose(['logs', `--tail=${LOG_LINES}`])
  }

  /** Any other command of Docker. */
  docker(...command: string[]): Promise<string> {
    return docker(command, { signal: this.#interrupted })
  }

  /** Polls until it is so. What does not answer yet is no error. */
  async eventually(
    what: string,
    isSo: () => Promise<boolean>,
    timeoutMs = WAIT_TIMEOUT_MS,
  ): Promise<void> {
    const deadline = AbortSignal.timeout(timeoutMs)
    while (!(await isSo().catch(() => false))) {
      assert.ok(!deadline.aborted, `${what}: not within ${timeoutMs} ms`)
      await sleep(POLL_MS, undefined, { signal: this.#interrupted })
    }
  }

  #compose(command: string[], { settings, ...options }: Options = {}): Promise<string> {
    const project = [
      `--project-name=${this.#project}`,
      '--file=docker-compose.yml',
      `--env-file=${devNull}`,
    ]
    const env = { ...process.env, ...SETTINGS, COMPOSE_PROFILES: this.#profile, ...settings }
    return docker(['compose', ...project, ...command], {
      signal: this.#interrupted,
      env,
      ...options,
    })
  }
}

async function docker(
  args: string[],
  options: Omit<Options, 'settings'> & { env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const { stdout } = await run('docker', args, {
    cwd: ROOT,
    timeout: COMMAND_TIMEOUT_MS,
    maxBuffer: MAX_OUTPUT_BYTES,
    ...options,
  })
  return stdout.trim()
}

/** A command's failure as a value. */
function ended(command: Promise<string>): Promise<Ended> {
  return command.then(
    (stdout) => ({ code: 0, stdout, stderr: '' }),
    ({ code, stdout, stderr }) => ({ code, stdout, stderr }),
  )
}
