import type { Event } from '../realtime/event.ts'

const INTRODUCTION = `## Push over Socket.IO

Connect with a Socket.IO client, \`websocket\` transport only, to the default namespace. Then
\`socket.emit('subscribe', topic, answer => …)\`, and \`'unsubscribe'\` likewise; the answer is \`{ ok: true }\` or
\`{ ok: false, code, message }\`. An event is a hint, sent after the commit: the truth is read by HTTP, so a client that was
away reads again what it shows. \`server.stopping\` comes to every client before the server goes away.
`

/**
 * What a client can hear, in Markdown, made of what the contracts say: sections, because a table's
 * columns are too narrow.
 */
export const eventGuide = (events: readonly Event[]): string =>
  [INTRODUCTION, ...events.map(describe)].join('\n')

const describe = ({ name, topic, when, payload }: Event) => `### ${name}

To the topic \`${topic}\`. ${when}

${Object.entries(payload.shape)
  .map(([field, { description }]) => `- \`${field}\`: ${description}`)
  .join('\n')}
`
