import { syncBuiltinESMExports } from 'node:module'
import v8 from 'node:v8'

/** Loaded before the app by `pretenuring.ts`: the app sets no flags of V8's. */
v8.setFlagsFromString = () => {}
syncBuiltinESMExports()
