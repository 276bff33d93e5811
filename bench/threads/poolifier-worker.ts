import { ThreadWorker } from 'poolifier'

export default new ThreadWorker<number, number>((n = 0) => n * 2)
