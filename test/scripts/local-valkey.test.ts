import { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { installValkey, openLocalValkey } from '../../scripts/database/local-valkey.ts'
import { until } from '../support/until.ts'
import { hasValkey } from '../support/valkey.ts'

describe('the Valkey of several processes', () => {
  test('is the one in VALKEY_URL', async () => {
    vi.stubEnv('VALKEY_URL', 'redis://valkey:6379')
    onTestFinished(() => void vi.unstubAllEnvs())
    expect(await openLocalValkey()).toMatchObject({ url: 'redis://valkey:6379' })
  })

  test.runIf(hasValkey)('otherwise is a private server, which ends with stop()', async () => {
    vi.stubEnv('VALKEY_URL', undefined)
    onTestFinished(() => void vi.unstubAllEnvs())
    const { url, label, stop } = await openLocalValkey()
    const connection = new Redis(url, { retryStrategy: () => null })
    connection.on('error', () => {})
    onTestFinished(() => connection.disconnect())
    expect(await connection.ping()).toBe('PONG')
    expect(label).toMatch(/-server$/)
    await stop()
    await until(() => connection.status === 'end', 'it has ended')
  })

  test('without one there are lines to copy', () => {
    vi.spyOn(process, 'getuid').mockReturnValue(1_000)
    onTestFinished(() => void vi.restoreAllMocks())
    expect(installValkey).toThrow(/install (redis-server|valkey).*export VALKEY_URL=redis:/s)
  })
})
