import { findProgram, startPrivateServer } from '../../scripts/database/private-server.ts'

/** A process that starts a private server in FOLDER, prints its URL, and waits to be killed. */
const { url } = await startPrivateServer(findProgram() ?? '', process.env['FOLDER'] ?? '')
console.log(`at ${url}`)
setInterval(() => {}, 1_000)
