import { z } from '@hono/zod-openapi'
import { serialize } from 'hono/utils/cookie'
import type { Database, Db } from '../db/database.ts'
import { AppError } from '../errors.ts'
import { type AppContext, expectSubject, getContext } from '../http/context.ts'
import { text } from '../http/params.ts'
import { createRouter, json, jsonBody, validationFailed } from '../http/router.ts'
import { ROLES, type Scope } from '../roles.ts'
import { changeAccount, createAccount, findAccount, findByEmail } from './accounts.ts'
import type { Authenticator } from './authenticator.ts'
import { toNetwork } from './client.ts'
import { createCredential, deleteExpired, listCredentials } from './credentials.ts'
import { cookieName } from './identify.ts'
import type { RateLimits } from './limits.ts'
import type { Passwords } from './password.ts'

const COOKIE_SECONDS = 30 * 86_400
const DAY_MS = 86_400_000
const MAX_EXPIRED = 100

const SCOPES = [...new Set(Object.values(ROLES).flat())] as [Scope, ...Scope[]]

/** Lower case and ASCII, so that no two accounts look alike. */
const Email = z
  .string()
  .trim()
  .toLowerCase()
  .max(254)
  .regex(/^[\w.!#$%&'*+/=?^`{|}~-]+@[a-z\d-]+(\.[a-z\d-]+)*$/, {
    message: 'Must be an e-mail address in ASCII, such as name@example.com',
  })
  .openapi({ example: 'name@example.com' })

/** NIST SP 800-63B: length counts, composition does not. */
const NewPassword = text().min(12).max(200).openapi({ format: 'password' })
const Password = z.string().max(1_000).openapi({ format: 'password' })

export const SignUp = z.strictObject({ email: Email, password: NewPassword }).openapi('SignUp')
const SignIn = z.strictObject({ email: Email, password: Password }).openapi('SignIn')

const PasswordChange = z
  .strictObject({ password: Password, newPassword: NewPassword })
  .openapi('PasswordChange')

const Account = z
  .strictObject({
    id: z.int(),
    email: z.string(),
    role: z.enum(Object.keys(ROLES) as [keyof typeof ROLES]),
    scopes: z.array(z.enum(SCOPES)).openapi({ description: 'What this session or key may do' }),
  })
  .openapi('Account')

const Timestamp = z.string().openapi({ format: 'date-time' })

const credential = {
  id: z.string(),
  createdAt: Timestamp,
  usedAt: Timestamp.openapi({ description: 'To the minute' }),
}

const Session = z
  .strictObject({
    ...credential,
    userAgent: z.string(),
    address: z.string().nullable(),
    expiresAt: Timestamp,
    current: z.boolean().openapi({ description: 'Whether this request was made with it' }),
  })
  .openapi('Session')

const ApiKey = z
  .strictObject({
    ...credential,
    name: z.string(),
    scopes: z.array(z.enum(SCOPES)),
    expiresAt: Timestamp.nullable(),
  })
  .openapi('ApiKey')

const NewApiKey = z
  .strictObject({
    name: text().trim().min(1).max(200),
    scopes: z.array(z.enum(SCOPES)).min(1).openapi({ description: 'At most your own' }),
    expiresInDays: z.int().min(1).max(3_650).optional().openapi({ description: 'Default: never' }),
  })
  .openapi('NewApiKey')

const CreatedApiKey = z
  .strictObject({
    ...ApiKey.shape,
    key: z.string().openapi({ description: 'Shown this once', example: 'ofl_…' }),
  })
  .openapi('CreatedApiKey')

const CredentialId = z.strictObject({ id: z.uuid().toLowerCase() })
const SessionId = z.strictObject({
  id: z.union([z.uuid().toLowerCase(), z.literal('current')]),
})

export interface AccessDeps {
  database: Database
  passwords: Passwords
  authenticator: Authenticator
  limits: RateLimits
  signUp: boolean
  behindTls: boolean
}

export function accessRoutes(deps: AccessDeps) {
  const { database, passwords, authenticator, limits, behindTls } = deps
  const router = createRouter()
  const open = (c: AppContext) => database.withSignal(getContext(c).signal)
  const wrong = { 401: { description: 'The address or the password is wrong' } }
  const gone = { 404: { description: 'Your account does not exist any more' } }

  /** @throws AppError `unauthenticated`, and `rate_limited` after several wrong passwords. */
  async function checkPassword(
    c: AppContext,
    account: FoundAccount | undefined,
    email: string,
    password: string,
  ): Promise<FoundAccount> {
    const { client = '', signal } = getContext(c)
    const network = toNetwork(client)
    // Also for an unknown account, so that the time does not tell.
    const sessions = await listCredentials(open(c), account?.id ?? 0, 'session')
    const isKnown = sessions.some(({ address }) => toNetwork(address ?? '') === network)
    const forget = await limits.countGuess(email, client, isKnown)
    const isRight = await passwords.check(password, account?.passwordHash ?? null, signal)
    if (!account || !isRight) throw wrongPassword()
    forget()
    return account
  }

  router.openapi({
    method: 'post',
    path: '/accounts',
    operationId: 'signUp',
    summary: 'Create an account, and sign in',
    access: 'public',
    limit: 'login',
    request: jsonBody(SignUp),
    responses: {
      201: json(Account, 'Created and signed in'),
      403: { description: 'Sign-up is switched off' },
      409: { description: 'The address has an account' },
    },
    handler: async (c) => {
      if (!deps.signUp) throw new AppError('forbidden', 'Sign-up is switched off: ask an operator')
      const { email, password } = c.req.valid('json')
      const password_hash = await passwords.hash(password, getContext(c).signal)
      const db = open(c)
      const id = await createAccount(db, { email, password_hash, role: 'member' })
      await startSession(c, db, id, behindTls)
      return c.json(await readAccount(db, id), 201)
    },
  })

  router.openapi({
    method: 'get',
    path: '/accounts/me',
    operationId: 'readAccount',
    summary: 'Read who you are, and what you may do',
    access: 'account',
    responses: { 200: json(Account, 'Your account'), ...gone },
    handler: async (c) => {
      const { accountId, scopes } = expectSubject(c)
      return c.json(await readAccount(open(c), accountId, scopes), 200)
    },
  })

  router.openapi({
    method: 'put',
    path: '/accounts/me/password',
    operationId: 'changePassword',
    summary: 'Change the password, which ends your other sessions',
    access: 'account',
    limit: 'login',
    request: jsonBody(PasswordChange),
    responses: { 204: { description: 'Changed' }, ...wrong, ...gone },
    handler: async (c) => {
      const { accountId, credential } = expectSubject(c)
      const { password, newPassword } = c.req.valid('json')
      const { signal } = getContext(c)
      const account = (await findAccount(open(c), accountId)) ?? missing()
      await checkPassword(c, account, account.email, password)
      const password_hash = await passwords.hash(newPassword, signal)
      await changeAccount(open(c), accountId, { password_hash })
      await authenticator.revoke(open(c), accountId, 'session', { except: credential.id })
      return c.body(null, 204)
    },
  })

  router.openapi({
    method: 'post',
    path: '/sessions',
    operationId: 'signIn',
    summary: 'Sign in',
    access: 'public',
    limit: 'login',
    request: jsonBody(SignIn),
    responses: { 201: json(Account, 'Signed in: see `Set-Cookie`'), ...wrong },
    handler: async (c) => {
      const { email, password } = c.req.valid('json')
      const db = open(c)
      const checked = await checkPassword(c, await findByEmail(db, email), email, password)
      const { id } = checked
      const session = await startSession(c, db, id, behindTls)
      // A change of the password meanwhile did not end this session.
      if ((await findAccount(db, id))?.passwordHash !== checked.passwordHash) {
        await authenticator.revoke(db, id, 'session', { id: session })
        throw wrongPassword()
      }
      return c.json(await readAccount(db, id), 201)
    },
  })

  router.openapi({
    method: 'get',
    path: '/sessions',
    operationId: 'listSessions',
    summary: 'List your sessions, newest first',
    access: 'account',
    responses: { 200: json(z.object({ items: z.array(Session) }), 'All of them') },
    handler: async (c) => {
      const { accountId, credential } = expectSubject(c)
      const rows = await listCredentials(open(c), accountId, 'session')
      const items = rows.map((row) => toSession(row, credential.id))
      return c.json({ items }, 200)
    },
  })

  router.openapi({
    method: 'delete',
    path: '/sessions',
    operationId: 'endSessions',
    summary: 'End all of your sessions, this one too',
    access: 'account',
    responses: { 204: { description: 'Ended' } },
    handler: async (c) => {
      await authenticator.revoke(open(c), expectSubject(c).accountId, 'session')
      return c.body(null, 204, { 'Set-Cookie': toCookie('', behindTls, 0) })
    },
  })

  router.openapi({
    method: 'delete',
    path: '/sessions/{id}',
    operationId: 'endSession',
    summary: 'End a session; `current` signs out',
    access: 'account',
    request: { params: SessionId },
    responses: { 204: { description: 'Ended' } },
    handler: async (c) => {
      const { accountId, credential } = expectSubject(c)
      const { id } = c.req.valid('param')
      const isCurrent = id === 'current' || id === credential.id
      const session = id === 'current' ? credential.id : id
      if ((await authenticator.revoke(open(c), accountId, 'session', { id: session })) === 0)
        throw new AppError('not_found', `You have no session ${id}`)
      return c.body(null, 204, isCurrent ? { 'Set-Cookie': toCookie('', behindTls, 0) } : {})
    },
  })

  router.openapi({
    method: 'post',
    path: '/keys',
    operationId: 'createKey',
    summary: 'Create an API key',
    access: 'account',
    request: jsonBody(NewApiKey),
    responses: {
      201: json(CreatedApiKey, 'Created; the key is shown this once'),
      403: { description: 'It takes a session, not another key' },
      404: { description: 'The key has been revoked already' },
    },
    handler: async (c) => {
      const { accountId, scopes: own, credential } = expectSubject(c)
      // Revoking a key that leaked must not leave others that it has made.
      if (credential.kind === 'key')
        throw new AppError('forbidden', 'An API key makes no others: sign in to create one')
      const { name, scopes, expiresInDays } = c.req.valid('json')
      const more = scopes.filter((scope) => !own.has(scope))
      if (more.length > 0)
        throw validationFailed([
          { path: 'body.scopes', message: `You do not have ${more.join(', ')} yourself` },
        ])
      const expiresAt =
        expiresInDays === undefined ? null : new Date(Date.now() + expiresInDays * DAY_MS)
      const db = open(c)
      const { id, token } = await createCredential(db, {
        kind: 'key',
        accountId,
        name,
        scopes,
        expiresAt,
      })
      const row = (await listCredentials(db, accountId, 'key')).find((key) => key.id === id)
      if (!row) throw new AppError('not_found', 'The key has been revoked already')
      return c.json({ ...toApiKey(row), key: token }, 201)
    },
  })

  router.openapi({
    method: 'get',
    path: '/keys',
    operationId: 'listKeys',
    summary: 'List your API keys, newest first',
    access: 'account',
    responses: { 200: json(z.object({ items: z.array(ApiKey) }), 'All of them') },
    handler: async (c) => {
      const rows = await listCredentials(open(c), expectSubject(c).accountId, 'key')
      return c.json({ items: rows.map(toApiKey) }, 200)
    },
  })

  router.openapi({
    method: 'delete',
    path: '/keys/{id}',
    operationId: 'revokeKey',
    summary: 'Revoke an API key',
    access: 'account',
    request: { params: CredentialId },
    responses: { 204: { description: 'Revoked' } },
    handler: async (c) => {
      const { id } = c.req.valid('param')
      if ((await authenticator.revoke(open(c), expectSubject(c).accountId, 'key', { id })) === 0)
        throw new AppError('not_found', `You have no API key ${id}`)
      return c.body(null, 204)
    },
  })

  return router
}

export async function startSession(c: AppContext, db: Db, accountId: number, behindTls: boolean) {
  await deleteExpired(db, MAX_EXPIRED)
  const name = c.req.header('user-agent') ?? ''
  const address = getContext(c).client
  const { id, token } = await createCredential(db, { kind: 'session', accountId, name, address })
  c.header('Set-Cookie', toCookie(token, behindTls, COOKIE_SECONDS))
  return id
}

async function readAccount(db: Db, id: number, granted?: ReadonlySet<string>) {
  const { email, role } = (await findAccount(db, id)) ?? missing()
  const scopes = ROLES[role].filter((scope) => granted?.has(scope) ?? true)
  return { id, email, role, scopes }
}

function missing(): never {
  throw new AppError('not_found', 'Your account does not exist any more')
}

type FoundAccount = NonNullable<Awaited<ReturnType<typeof findByEmail>>>

const wrongPassword = () => new AppError('unauthenticated', 'The address or the password is wrong')

type Row = Awaited<ReturnType<typeof listCredentials>>[number]

function toSession({ id, name, address, createdAt, usedAt, expiresAt }: Row, currentId: string) {
  return {
    id,
    userAgent: name,
    address,
    createdAt: createdAt.toISOString(),
    usedAt: usedAt.toISOString(),
    expiresAt: expiresAt?.toISOString() ?? '',
    current: id === currentId,
  }
}

const toApiKey = ({ id, name, scopes, createdAt, usedAt, expiresAt }: Row) => ({
  id,
  name,
  scopes: JSON.parse(scopes ?? '[]') as Scope[],
  createdAt: createdAt.toISOString(),
  usedAt: usedAt.toISOString(),
  expiresAt: expiresAt?.toISOString() ?? null,
})

/** `Lax` lets links to the service work; changes are checked by `identify`. */
const toCookie = (token: string, behindTls: boolean, maxAge: number) =>
  serialize(cookieName(behindTls), token, {
    path: '/',
    httpOnly: true,
    sameSite: 'Lax',
    secure: behindTls,
    maxAge,
  })
