import { BAILOUT, type EscapedRow, type Line } from './escape-row.ts'
import { type KernelConstant, type KernelMemory, loadKernel } from './kernel.ts'

/** What `escape-row.kernel.ts` exports. */
interface Kernel {
  memory: KernelMemory
  COUNTS: KernelConstant
  NORMS: KernelConstant
  MAX_WIDTH: KernelConstant
  escapeRow(
    left: number,
    step: number,
    imaginary: number,
    width: number,
    iterations: number,
    bailout: number,
  ): void
}

/** The same as `escapeRow`, compiled ahead; absent where the kernel is not built. */
export const escapeRowWasm = compiled()

function compiled(): ((line: Line) => EscapedRow) | undefined {
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
