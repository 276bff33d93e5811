import { describe, expect, test } from 'vitest'
import { useProcess } from '../../support/process.ts'
import { metric, request, startService } from '../../support/service.ts'
import { until } from '../../support/until.ts'
import { hasValkey, useValkey } from '../../support/valkey.ts'

/** A second on one thread. */
const TO = 4_000_000
const COUNT = 283_146

describe.runIf(hasValkey)('counting primes with distributed=true', () => {
  test('uses the threads of a worker process, whose span names the request', async () => {
    const valkey = await useValkey()
    const env = { VALKEY_URL: valkey.url, COMPUTE_THREADS: '1' }
    const service = await startService({ ...env, ROLE: 'web', REQUEST_TIMEOUT_MS: '60000' })
    try {
      const worker = useProcess('src/main.ts', {
        ...env,
        ROLE: 'worker',
        DATABASE_URL: service.databaseUrl,
      })
      await until(() => worker.opsUrl(), 'the worker serves')
      const url = `${service.url}/v1/primes?to=${TO}&distributed=true`
      await until(async () => {
        const { body } = await request(url)
        expect(body).toMatchObject({ to: TO, count: COUNT, mode: 'offload' })
        return await metric(service.opsUrl, 'remote_chunks_total{outcome="done"}')
      }, 'the worker has taken part')
      const ran = 'compute_task_duration_seconds_count{task="primes.count",outcome="succeeded"}'
      expect(await metric(worker.opsUrl(), ran)).toBeGreaterThan(0)
      expect(await metric(service.opsUrl, 'remote_chunks_running')).toBe(0)
      worker.child.kill('SIGTERM')
      expect(await worker.exitCode).toBe(0)
    } finally {
      await service.close()
    }
  })

  test('runs on the threads of one process without others', async () => {
    const service = await startService({ REQUEST_TIMEOUT_MS: '60000' })
    try {
      const { body } = await request(`${service.url}/v1/primes?to=1000&distributed=true`)
      expect(body).toMatchObject({ count: 168 })
    } finally {
      await service.close()
    }
  })
})
