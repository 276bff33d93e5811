import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { createAccount, findByEmail } from '../../src/access/accounts.ts'
import { createCredential, findSubject } from '../../src/access/credentials.ts'
import { useDatabase } from '../support/database.ts'
import { request, useService } from '../support/service.ts'

const PASSWORD = 'correct horse battery staple'

/** Runs `npm run operator`, with something on its standard input. */
async function run(databaseUrl: string, args: string[], input = '') {
  const child = spawn(process.execPath, ['scripts/operator.ts', ...args], {
    env: { PATH: process.env['PATH'], DATABASE_URL: databaseUrl },
  })
  child.stdin.end(input)
  const output = Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = await once(child, 'close')
  return { code, output: (await output).join('').trim() }
}

async function useMember() {
  const { url, database } = await useDatabase()
  const db = database.withSignal()
  const email = 'member@example.com'
  const accountId = await createAccount(db, { email, password_hash: null, role: 'member' })
  const { token } = await createCredential(db, { kind: 'session', accountId, name: 'test' })
  return { url, db, email, token }
}

describe('npm run operator', () => {
  test('creates an operator, who signs in with the password that was piped', async () => {
    const { url, databaseUrl } = await useService()
    expect(await run(databaseUrl, ['add', 'New@Example.com'], `${PASSWORD}\n`)).toEqual({
      code: 0,
      output: 'Created new@example.com, an operator',
    })
    const account = { email: 'new@example.com', password: PASSWORD }
    const { status, body } = await request(`${url}/v1/sessions`, 'POST', account)
    expect([status, body.role]).toEqual([201, 'operator'])
    expect((await run(databaseUrl, ['list'])).output).toContain('new@example.com')
  })

  test('makes a member an operator and back, and ends the sessions each time', async () => {
    const { url, db, email, token } = await useMember()
    expect((await run(url, ['add', email])).output).toBe('member@example.com is an operator')
    expect((await findByEmail(db, email))?.role).toBe('operator')
    expect(await findSubject(db, token)).toBe(undefined)
    expect((await run(url, ['remove', email])).output).toBe('member@example.com is a member')
    expect((await findByEmail(db, email))?.role).toBe('member')
    expect((await run(url, ['list'])).output).toBe('operator@test.example')
  })

  test('leaves the sessions of one who is an operator already', async () => {
    const { url, db, email, token } = await useMember()
    await run(url, ['remove', email])
    expect(await findSubject(db, token)).toBeDefined()
  })

  test.each([
    [['add', 'new@example.com'], 'short\n', /^The password: Must have at least 12 characters$/],
    [['add', 'new@example.com'], '', /^The password: Must have/],
    [['add', 'näme@example.com'], '', /^EMAIL: Must be an e-mail address in ASCII/],
    [['remove', 'nobody@example.com'], '', /^There is no account nobody@example\.com$/],
    [['make'], '', /^Usage: npm run operator -- add EMAIL/],
  ])('refuses %j with %j on its input', async (args, input, message) => {
    const { url } = await useDatabase()
    const { code, output } = await run(url, args, input)
    expect(code).toBe(1)
    expect(output).toMatch(message)
  })
})
