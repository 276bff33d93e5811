import { number } from '../align.ts'

/**
 * What a measurement found: a table to print, the targets it has, and the figures for the results
 * file.
 */
export interface Report {
  title: string
  /** The first is the head. */
  rows: string[][]
  targets: Target[]
  figures: object
}

export interface Target {
  what: string
  wanted: string
  measured: number
  met: boolean
}

export const atMost = (what: string, measured: number, limit: number): Target => ({
  what,
  wanted: `≤ ${limit}`,
  measured,
  met: measured <= limit,
})

export const atLeast = (what: string, measured: number, limit: number): Target => ({
  what,
  wanted: `≥ ${limit}`,
  measured,
  met: measured >= limit,
})

export const targetRows = (targets: Target[]): string[][] => [
  ['target', 'wanted', 'measured', ''],
  ...targets.map(({ what, wanted, measured, met }) => [
    what,
    wanted,
    number(measured, 2),
    met ? 'met' : 'missed',
  ]),
]
