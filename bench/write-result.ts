import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileHere } from './child.ts'

/**
 * With `--save` a run replaces the results that the repository has; without, it leaves them alone.
 */
const FOLDER = process.argv.includes('--save') ? 'bench/results' : '.data/bench/results'

/** Writes a file of results. */
export function writeResult(name: string, content: string): void {
  const path = fileHere(`../${FOLDER}/${name}`)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
  console.log(`Wrote ${FOLDER}/${name}`)
}

/** As JSON, figures with three digits after the point. */
export function writeResultJson(name: string, results: object): void {
  const shorten = (_: string, value: unknown) =>
    typeof value === 'number' ? Math.round(value * 1_000) / 1_000 : value
  writeResult(name, `${JSON.stringify(results, shorten, 2)}\n`)
}
