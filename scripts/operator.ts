import './load-env.ts'
import { randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import type { z } from 'zod'
import { changeAccount, createAccount, findByEmail } from '../src/access/accounts.ts'
import { hashNow } from '../src/access/compute.ts'
import { deleteCredentials } from '../src/access/credentials.ts'
import { SignUp } from '../src/access/routes.ts'
import type { Db } from '../src/db/database.ts'
import { assertMigrated } from '../src/db/migrate.ts'
import { AppError } from '../src/errors.ts'
import type { Role } from '../src/roles.ts'
import { onDatabase } from './database/local-database.ts'

/** `npm run operator -- add EMAIL | remove EMAIL | list`. */
const USAGE = `Usage: npm run operator -- add EMAIL     make an account an operator, or create it
       npm run operator -- remove EMAIL  make an operator a member
       npm run operator -- list          list all operators`

const commands: Record<string, (db: Db, email: string) => Promise<string>> = {
  async add(db, text) {
    const email = check('EMAIL', SignUp.shape.email, text)
    if (await changeRole(db, email, 'operator')) return `${email} is an operator`
    const password = check('The password', SignUp.shape.password, await readPassword())
    const password_hash = hashNow(password, randomBytes(16))
    await createAccount(db, { email, password_hash, role: 'operator' })
    return `Created ${email}, an operator`
  },
  async remove(db, text) {
    const email = check('EMAIL', SignUp.shape.email, text)
    if (await changeRole(db, email, 'member')) return `${email} is a member`
    throw new AppError('not_found', `There is no account ${email}`)
  },
  async list(db) {
    const operators = db.selectFrom('account').select('email').where('role', '=', 'operator')
    const rows = await operators.orderBy('email').execute()
    return rows.map(({ email }) => email).join('\n') || 'There are no operators'
  },
}

const [command = '', email = ''] = process.argv.slice(2)
try {
  const run = commands[command]
  if (!run) throw new AppError('bad_request', USAGE)
  const work = async (db: Db) => {
    await assertMigrated(db)
    return run(db, email)
  }
  console.log(await onDatabase(work))
} catch (error) {
  console.error(error instanceof AppError ? error.message : error)
  process.exitCode = 1
}

/** Ends the account's sessions, whose scopes the service may remember. False without an account. */
async function changeRole(db: Db, email: string, role: Role): Promise<boolean> {
  const account = await findByEmail(db, email)
  if (!account) return false
  if (account.role === role) return true
  await changeAccount(db, account.id, { role })
  await deleteCredentials(db, account.id, 'session')
  return true
}

/** @throws AppError that says what is wrong with what was typed. */
function check(name: string, schema: z.ZodType<string>, text: string): string {
  const { data, error } = schema.safeParse(text)
  if (data !== undefined) return data
  const problems = error?.issues.map(({ message }) => message)
  throw new AppError('invalid', `${name}: ${problems?.join('. ')}`)
}

/** From the terminal, twice and without echo; otherwise the first line of standard input. */
async function readPassword(): Promise<string> {
  const { isTTY } = process.stdin
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const input = createInterface({ input: process.stdin, output: silent, terminal: isTTY })
  const lines = input[Symbol.asyncIterator]()
  const ask = async (question: string) => {
    if (isTTY) process.stderr.write(question)
    const { value = '' } = await lines.next()
    if (isTTY) process.stderr.write('\n')
    return value
  }
  try {
    const password = await ask('Password: ')
    if (isTTY && (await ask('Password again: ')) !== password)
      throw new AppError('invalid', 'The passwords differ: try again')
    return password
  } finally {
    input.close()
  }
}
