/** Milliseconds on the one clock that all threads of this machine share. */
export const nowMs = () => Number(process.hrtime.bigint()) / 1e6
