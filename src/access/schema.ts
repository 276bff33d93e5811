import { z } from '@hono/zod-openapi'
import { text } from '../http/params.ts'
import { ROLES, type Scope } from '../roles.ts'

const SCOPES = [...new Set(Object.values(ROLES).flat())] as [Scope, ...Scope[]]

/** Lower case and ASCII, so that no two accounts look alike. Other domains are written in punycode. */
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
export const SignIn = z.strictObject({ email: Email, password: Password }).openapi('SignIn')

export const PasswordChange = z
  .strictObject({ password: Password, newPassword: NewPassword })
  .openapi('PasswordChange')

export const Account = z
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

export const Session = z
  .strictObject({
    ...credential,
    userAgent: z.string(),
    address: z.string().nullable(),
    expiresAt: Timestamp,
    current: z.boolean().openapi({ description: 'Whether this request was made with it' }),
  })
  .openapi('Session')

export const ApiKey = z
  .strictObject({
    ...credential,
    name: z.string(),
    scopes: z.array(z.enum(SCOPES)),
    expiresAt: Timestamp.nullable(),
  })
  .openapi('ApiKey')

export const NewApiKey = z
  .strictObject({
    name: text().trim().min(1).max(200),
    scopes: z.array(z.enum(SCOPES)).min(1).openapi({ description: 'At most your own' }),
    expiresInDays: z
      .int()
      .min(1)
      .max(3_650)
      .optional()
      .openapi({ description: 'Default: never, or as the key that asks' }),
  })
  .openapi('NewApiKey')

export const CreatedApiKey = z
  .strictObject({
    ...ApiKey.shape,
    key: z.string().openapi({ description: 'Shown this once', example: 'ofl_…' }),
  })
  .openapi('CreatedApiKey')

export const CredentialId = z.strictObject({ id: z.uuid().toLowerCase() })
export const SessionId = z.strictObject({
  id: z.union([z.uuid().toLowerCase(), z.literal('current')]),
})
