/** What each role may do. Add new scopes here. */
export const ROLES = {
  member: [
    'account',
    // feature: reports
    'reports:read',
    'reports:write',
    // /feature
  ],
  operator: [
    'account',
    'operate',
    // feature: products
    'products:write',
    // /feature
    // feature: reports
    'reports:read',
    'reports:write',
    // /feature
  ],
} as const

export type Role = keyof typeof ROLES
export type Scope = (typeof ROLES)[Role][number]

/** What a route or topic asks of its callers. */
export type Access = 'public' | Scope

/** Who calls, known by a session or an API key. */
export interface Subject {
  /** In logs, jobs, limits and as the pool's key: `account:7`. */
  id: string
  accountId: number
  scopes: ReadonlySet<string>
  credential: { kind: 'session' | 'key'; id: string }
  /** In milliseconds since 1970; infinite for a key without expiry. */
  expiresAt: number
}
