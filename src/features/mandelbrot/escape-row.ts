import { existsSync, readFileSync } from 'node:fs'

/** A row of points, `step` apart, that starts at `left` + `imaginary` i. */
interface Line {
  left: number
  step: number
  imaginary: number
  width: number
  iterations: number
}

/** The next row overwrites it: copying takes time. */
export interface EscapedRow {
  /** Iterations before the escape; all of them for a point of the set. */
  counts: Int32Array
  /** The squared distance to 0 after the escape; undefined for a point of the set. */
  norms: Float32Array
}

/** The squared distance of an escape; large, for smooth colours. */
export const BAILOUT = 2 ** 16

let counts = new Int32Array(0)
let norms = new Float32Array(0)

/** Iterates z ← z² + c without shortcuts, as `escape-row.kernel.ts` does. */
export function escapeRow({ left, step, imaginary, width, iterations }: Line): EscapedRow {
  if (counts.length < width) {
    counts = new Int32Array(width)
    norms = new Float32Array(width)
  }
  for (let column = 0; column < width; column++) {
    const cr = left + column * step
    let zr = 0
    let zi = 0
    let rr = 0
    let ii = 0
    let norm = 0
    let count = 0
    for (; count < iterations; count++) {
      zi = (zr + zr) * zi + imaginary
      zr = rr - ii + cr
      rr = zr * zr
      ii = zi * zi
      norm = rr + ii
      if (norm > BAILOUT) break
    }
    counts[column] = count
    norms[column] = norm
  }
  return { counts, norms }
}

interface Kernel {
  memory: { buffer: ArrayBuffer }
  COUNTS: { value: number }
  NORMS: { value: number }
  MAX_WIDTH: { value: number }
  escapeRow(...lineAndBailout: number[]): void
}

/** `escapeRow` in WebAssembly, if it is built. */
export const escapeRowWasm = loadEscapeRow()

function loadEscapeRow(): ((line: Line) => EscapedRow) | undefined {
  const kernel = loadKernel<Kernel>(new URL('./escape-row.wasm', import.meta.url))
  if (!kernel) return undefined
  const { memory, COUNTS, NORMS, MAX_WIDTH } = kernel
  const row: EscapedRow = {
    counts: new Int32Array(memory.buffer, COUNTS.value, MAX_WIDTH.value),
    norms: new Float32Array(memory.buffer, NORMS.value, MAX_WIDTH.value),
  }
  return ({ left, step, imaginary, width, iterations }) => {
    kernel.escapeRow(left, step, imaginary, width, iterations, BAILOUT)
    return row
  }
}

/** TypeScript declares it only for browsers. */
declare const WebAssembly: {
  Module: new (code: Uint8Array) => object
  Instance: new (module: object) => { exports: object }
}

export function loadKernel<Exports>(file: URL): Exports | undefined {
  if (!existsSync(file)) return undefined
  const module = new WebAssembly.Module(readFileSync(file))
  return new WebAssembly.Instance(module).exports as Exports
}
