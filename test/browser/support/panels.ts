import type { Locator, Page } from 'playwright-core'
import { until } from '../../support/until.ts'

/** A panel of the live page. */
export const panel = (page: Page, id: string) => page.locator(`#${id}`)

export const button = (within: Page | Locator, name: string) =>
  within.getByRole('button', { name, exact: true })

/** What matched. @throws Error that says what there was instead */
export async function untilText(
  locator: Locator,
  pattern: RegExp,
  timeoutMs?: number,
): Promise<RegExpMatchArray> {
  let text: string | null = null
  const check = async () => {
    text = await locator.textContent()
    return text?.match(pattern)
  }
  return until(check, `there is ${pattern}`, timeoutMs).catch((error) => {
    throw new Error(`${error.message}, but "${text}"`)
  })
}

/** Whether the page hears what the service pushes. */
export const untilLive = (page: Page, timeoutMs?: number) =>
  untilText(page.locator('#connection'), /^Live$/, timeoutMs)

/** The points of a panel's chart from some time on, by the labels of its lines. */
export const pointsOf = (page: Page, id: string, line: number, since: number): Promise<number[]> =>
  panel(page, id).evaluate(
    (section, { line, since }) => {
      const [times, ...lines] = [...section.querySelectorAll('*')].find(({ chart }) => chart).chart
        .data
      return lines[line].filter(
        (value: number | null, index: number) => value !== null && times[index] >= since,
      )
    },
    { line, since },
  )
