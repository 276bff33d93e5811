import { enableCompileCache, getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'

/**
 * The environment of a thread or child process: nothing of the service's own, which holds secrets,
 * but where Node keeps what it has compiled, in NODE_COMPILE_CACHE or else among the temporary
 * files. With what those before it have left there, a worker thread starts for half of the CPU:
 * most of that goes into stripping types.
 */
export function threadEnvironment(): NodeJS.ProcessEnv {
  enableCompileCache()
  const folder = getCompileCacheDir()
  // Each version of Node has a folder of its own in there; none where nothing can be written.
  return folder ? { NODE_COMPILE_CACHE: dirname(folder) } : {}
}
