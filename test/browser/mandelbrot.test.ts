import type { Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { until } from '../support/until.ts'
import { button, panel, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

/** The page, and the views that it asks for. */
async function openPicture() {
  const page = await site.open()
  await untilDrawn(page, 1)
  const asked: URLSearchParams[] = []
  page.on('request', (request) => {
    const { pathname, searchParams } = new URL(request.url())
    if (pathname === '/v1/mandelbrot.png') asked.push(searchParams)
  })
  return { page, asked, picture: panel(page, 'mandelbrot').locator('.picture') }
}

const untilDrawn = (page: Page, zoom: number) =>
  untilText(
    panel(page, 'mandelbrot'),
    new RegExp(`${zoom} ×, \\d[\\d,]* × \\d[\\d,]* pixels in [\\d.]+ m?s`),
  )

const numbersOf = (view: URLSearchParams | undefined, ...names: string[]) =>
  names.map((name) => Number(view?.get(name)))

/**
 * What is on the canvas: its size, how many colours, and a text that is another for another
 * picture.
 */
const lookAt = (page: Page) =>
  panel(page, 'mandelbrot')
    .locator('canvas')
    .evaluate((canvas) => {
      const { width, height, clientWidth } = canvas
      const copy = canvas.cloneNode()
      copy.getContext('2d', { willReadFrequently: true }).drawImage(canvas, 0, 0)
      const { data } = copy.getContext('2d').getImageData(0, 0, width, height)
      const colours = new Set(new Uint32Array(Uint8Array.from(data).buffer))
      return { width, height, clientWidth, colours: colours.size, text: canvas.toDataURL() }
    })

test('it is drawn as wide as the place it has', async () => {
  const { page } = await openPicture()
  const { width, height, clientWidth, colours } = await lookAt(page)
  expect(width).toBe(clientWidth)
  expect(height).toBe(Math.round((width * 2) / 3))
  expect(colours).toBeGreaterThan(10)
})

test('a click zooms in on the place; zooming out and resetting lead back', async () => {
  const { page, asked, picture } = await openPicture()
  const { width, height } = (await picture.boundingBox()) ?? expect.unreachable()
  const home = await lookAt(page)
  await picture.click({ position: { x: width / 4, y: height / 4 } })
  await untilDrawn(page, 3)
  const [x, y, scale] = numbersOf(asked.at(-1), 'x', 'y', 'scale')
  expect(scale).toBeCloseTo(1.2)
  // A quarter of the plane's 3.6 to the left of the middle, and of its 2.4 above it.
  expect(x).toBeCloseTo(-0.65 - 0.9, 1)
  expect(y).toBeCloseTo(0.6, 1)
  expect((await lookAt(page)).text).not.toBe(home.text)

  await button(panel(page, 'mandelbrot'), 'Zoom out of the Mandelbrot set').click()
  await untilDrawn(page, 1)
  expect(numbersOf(asked.at(-1), 'x', 'scale')).toEqual([x, expect.closeTo(3.6)])
  await button(panel(page, 'mandelbrot'), 'Reset the Mandelbrot set').click()
  await until(async () => (await lookAt(page)).text === home.text, 'the first picture is back')
})

test('the keyboard zooms into the middle and moves', async () => {
  const { page, asked, picture } = await openPicture()
  await picture.focus()
  await page.keyboard.press('Enter')
  await untilDrawn(page, 3)
  expect(numbersOf(asked.at(-1), 'x', 'y', 'scale')).toEqual([-0.65, 0, expect.closeTo(1.2)])
  await page.keyboard.press('ArrowRight')
  await until(() => Number(asked.at(-1)?.get('x')) > -0.65, 'it moves to the right')
  await page.keyboard.press('ArrowUp')
  await until(() => Number(asked.at(-1)?.get('y')) > 0, 'it moves up')
})

test('a new click aborts the drawing before', async () => {
  const { page, picture } = await openPicture()
  const aborted: string[] = []
  page.on('requestfailed', (request) =>
    aborted.push(`${new URL(request.url()).pathname} ${request.failure()?.errorText}`),
  )
  await picture.evaluate((element) => {
    element.click()
    element.click()
  })
  await untilDrawn(page, 9)
  expect(aborted).toEqual(['/v1/mandelbrot.png net::ERR_ABORTED'])
})
