import { jobsAdmin } from './jobs-admin/routes.ts'
import { mandelbrot } from './mandelbrot/routes.ts'
import { primes } from './primes/routes.ts'
import { products } from './products/routes.ts'
import { reports } from './reports/routes.ts'

export const features = [products, primes, mandelbrot, reports, jobsAdmin]
