import { accessSync, constants } from 'node:fs'
import { AppError } from '../../src/errors.ts'

const DOCKER_SOCKET = '/var/run/docker.sock'

interface Machine {
  platform?: NodeJS.Platform
  /** Whether there is a Docker whose socket this user may not use. */
  dockerRefuses?: boolean
}

/** The error where no database can be found or started: what helps, as lines to copy. */
export function noDatabase({
  platform = process.platform,
  dockerRefuses = isRefused(),
}: Machine = {}): AppError {
  const lines = [
    ...(dockerRefuses
      ? ['sudo usermod -aG docker $USER && newgrp docker   # Docker runs, but refuses this user']
      : []),
    platform === 'darwin'
      ? 'brew install mariadb   # a private server, which starts and stops with the service'
      : 'sudo apt-get install mariadb-server-core mariadb-client-core   # a private server, which starts and stops with the service',
    'export DATABASE_URL=mysql://user:password@host:3306/offloop   # a server that you have',
  ]
  return new AppError(
    'unavailable',
    `No MySQL found. One of these lines helps, or starting Docker:\n\n  ${lines.join('\n  ')}\n`,
  )
}

function isRefused(): boolean {
  try {
    accessSync(DOCKER_SOCKET, constants.R_OK | constants.W_OK)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES'
  }
}
