import { mkdirSync, writeFileSync } from 'node:fs'
import { fileHere } from './child.ts'

/** Writes a file into `bench/results/`. */
export function writeResult(name: string, content: string): void {
  mkdirSync(fileHere('results'), { recursive: true })
  writeFileSync(fileHere(`results/${name}`), content)
  console.log(`Wrote bench/results/${name}`)
}

/** As JSON, figures with three digits after the point. */
export function writeResultJson(name: string, results: object): void {
  const shorten = (_: string, value: unknown) => (typeof value === 'number' ? Math.round(value * 1_000) / 1_000 : value)
  writeResult(name, `${JSON.stringify(results, shorten, 2)}\n`)
}
