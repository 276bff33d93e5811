import { readFileSync } from 'node:fs'

/** TypeScript knows the global only together with a browser's. */
declare const WebAssembly: {
  Module: new (code: Uint8Array) => object
  Instance: new (module: object) => { exports: object }
}

/** What a kernel exports as a constant: an address, say. */
export interface KernelConstant {
  readonly value: number
}

export interface KernelMemory {
  readonly buffer: ArrayBuffer
}

/**
 * A kernel that `scripts/build-kernels.ts` compiled, with memory of its own; `undefined` where it
 * is not built. Loaded at once and not asynchronously: a thread that starts has nothing else to do.
 * docs/kernels.md says how to add one.
 */
export function loadKernel<Exports>(file: URL): Exports | undefined {
  const code = readIfThere(file)
  return code && (new WebAssembly.Instance(new WebAssembly.Module(code)).exports as Exports)
}

function readIfThere(file: URL) {
  try {
    return readFileSync(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
