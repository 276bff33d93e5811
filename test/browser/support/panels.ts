import type { Locator, Page } from 'playwright-core'
import { until } from '../../support/until.ts'

/** A panel of the live page. */
export const panel = (page: Page, id: string) => page.locator(`#${id}`)

export const button = (within: Page | Locator, name: string) => within.getByRole('button', { name, exact: true })

export const untilText = (locator: Locator, pattern: RegExp, timeoutMs?: number) =>
  until(async () => (await locator.textContent())?.match(pattern), `there is ${pattern}`, timeoutMs)

/** Whether the page hears what the service pushes. */
export const untilLive = (page: Page, timeoutMs?: number) => untilText(page.locator('#connection'), /^Live$/, timeoutMs)

/** The points of a panel's chart from some time on, by the labels of its lines. */
export const pointsOf = (page: Page, id: string, line: number, since: number): Promise<number[]> =>
  panel(page, id).evaluate(
    (section, { line, since }) => {
      const container = [...section.querySelectorAll('*')].find((element) => 'chart' in element) as unknown as Charted
      const [times = [], ...lines] = container.chart.data
      return (lines[line] ?? []).filter((value, index): value is number => value !== null && (times[index] ?? 0) >= since)
    },
    { line, since },
  )

interface Charted {
  chart: { data: (number | null)[][] }
}
