import type { Event } from '../names.ts'

const INTRODUCTION = `## Push over Socket.IO

Connect with a Socket.IO client, \`websocket\` transport only, to the default namespace. Then
\`socket.emit('subscribe', topic, answer => …)\`, and \`'unsubscribe'\` likewise; the answer is \`{ ok: true }\` or
\`{ ok: false, code, message }\`. An event is a hint, sent after the commit: the truth is read by HTTP, so a client that was
away reads again what it shows. \`server.stopping\` comes to every client before the server goes away.

| event | topic | when | payload |
|---|---|---|---|
`

/** What a client can hear, in Markdown, made of what the contracts say. */
export const eventGuide = (events: readonly Event<string, unknown>[]): string =>
  INTRODUCTION + events.map(({ name, topic, when, payload }) => rowOf(name, topic, when, payload)).join('\n')

const rowOf = (name: string, topic: string, when: string, payload: Record<string, string>) =>
  `| \`${name}\` | \`${topic}\` | ${when} | ${fieldsOf(payload)} |`

const fieldsOf = (payload: Record<string, string>) =>
  Object.entries(payload)
    .map(([field, meaning]) => `\`${field}\`: ${meaning}`)
    .join('<br>')
