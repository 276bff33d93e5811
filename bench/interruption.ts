/** Rejects at Ctrl-C or when it is told to end, so that all that was started is stopped. */
export function interruption(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'])
      process.once(signal, () => reject(new Error('Interrupted')))
  })
}
