import { createConnection } from 'mysql2/promise'

/** Whether a server lets us in. */
export async function canConnect(url: string): Promise<boolean> {
  try {
    const connection = await createConnection({ uri: url, connectTimeout: 2_000 })
    await connection.end()
    return true
  } catch {
    return false
  }
}
