import { once } from 'node:events'
import { MessageChannel } from 'node:worker_threads'
import { expect, onTestFinished, test } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { receiveMessages } from '../protocol.ts'

test('messages come in their order, whatever comes while they are received', async () => {
  const { port1, port2 } = useChannel()
  const received: number[] = []
  receiveMessages<number>(port1, {
    onMessage(number) {
      received.push(number)
      if (number < 3) port2.postMessage(number + 10)
    },
    onUnreadable,
  })
  for (const number of [0, 1, 2, 3]) port2.postMessage(number)
  await until(() => received.length === 7, 'all are there')
  expect(received).toEqual([0, 1, 2, 3, 10, 11, 12])
})

test('the event loop has its turns, also while there is always one more', async () => {
  const { port1, port2 } = useChannel()
  let received = 0
  let turns = 0
  receiveMessages(port1, {
    onMessage() {
      if (received++ === 0) setImmediate(() => turns++)
      if (turns === 0 && received < 100_000) port2.postMessage(null)
    },
    onUnreadable,
  })
  port2.postMessage(null)
  await until(() => turns === 1, 'the turn has come')
  expect(received).toBeLessThan(3_000)
})

test('one that is awaited belongs to the same burst', async () => {
  const { port1, port2 } = useChannel()
  let asked = 0
  const turns: number[] = []
  let turn = 0
  receiveMessages(port1, {
    onMessage: () => turns.push(turn),
    onUnreadable,
    awaitNext() {
      if (asked++ === 0) port2.postMessage('second')
      return asked === 1
    },
  })
  port2.postMessage('first')
  setImmediate(() => turn++)
  await until(() => turns.length === 2, 'both are there')
  expect(new Set(turns).size).toBe(1)
  expect(asked).toBe(2)
})

test('what is left can be received when the other end is gone', async () => {
  const { port1, port2 } = useChannel()
  const received: string[] = []
  const receiveRest = receiveMessages<string>(port1, {
    onMessage: (message) => received.push(message),
    onUnreadable,
  })
  port2.postMessage('last words')
  port2.close()
  receiveRest()
  expect(received).toEqual(['last words'])
  await once(port1, 'close')
  receiveRest()
  expect(received).toEqual(['last words'])
})

function useChannel() {
  const channel = new MessageChannel()
  onTestFinished(() => channel.port1.close())
  return channel
}

function onUnreadable(error: Error): never {
  throw error
}
