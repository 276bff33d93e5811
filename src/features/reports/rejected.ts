import type { Summary } from './contract.ts'

const QUOTED = 20
const MAX_TEXT_CHARACTERS = 500

type Rejected = Summary['rejected']

/**
 * Rows that are in no figure of the summary: all are counted, by their reasons, and the first of
 * them quoted.
 */
export class RejectedRows {
  rows = 0
  readonly #reasons = new Map<string, number>()
  readonly #first: Rejected['first'] = []

  /** @param text called for the rows that are quoted only. */
  add(reason: string, line: number, column: string | null, text: () => string): void {
    this.rows++
    this.#reasons.set(reason, (this.#reasons.get(reason) ?? 0) + 1)
    if (this.#first.length < QUOTED)
      this.#first.push({ line, column, reason, text: text().slice(0, MAX_TEXT_CHARACTERS) })
  }

  summary(): Rejected {
    return { rows: this.rows, reasons: Object.fromEntries(this.#reasons), first: this.#first }
  }
}
