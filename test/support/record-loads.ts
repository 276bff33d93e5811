import { subscribe } from 'node:diagnostics_channel'
import { registerHooks } from 'node:module'
import type { Socket } from 'node:net'

/** Loaded before a process's own modules: prints what it loads and where it connects to. */
registerHooks({
  load(url, context, next) {
    console.log(`loads ${url}`)
    return next(url, context)
  },
})

subscribe('net.client.socket', (message) => {
  const { socket } = message as { socket: Socket }
  socket.on('connect', () => console.log(`connects to port ${socket.remotePort}`))
  socket.on('error', () => console.log('connects in vain'))
})
