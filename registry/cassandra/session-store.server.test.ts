import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { sessionStoreSuite } from '../session-store.suite.ts'
import { openTestStores } from './test-keyspace.ts'

let opened: Awaited<ReturnType<typeof openTestStores>>
beforeAll(async () => {
  opened = await openTestStores()
})
afterAll(() => opened.close())

sessionStoreSuite('Cassandra', async () => {
  const { stores, client, settings } = opened
  return {
    store: stores.sessions,
    passTime: (ms) => systemClock.sleep(ms),
    async setInboxHint(deviceId, inboxUntil, ttlSeconds) {
      const query = `UPDATE ${settings.keyspace}.device_sessions USING TIMESTAMP ? AND TTL ? SET inbox_until = ? WHERE device_id = ?`
      await client.execute(query, [BigInt(inboxUntil), ttlSeconds, BigInt(inboxUntil), deviceId])
    },
    async accountDevices(accountId) {
      const query = `SELECT device_id, last_seen_day FROM ${settings.keyspace}.account_devices WHERE account_id = ?`
      const { rows } = await client.execute(query, [accountId])
      return rows.map((row) => ({ deviceId: String(row.get('device_id')), day: Number(row.get('last_seen_day')) }))
    },
    close: async () => {},
  }
})

test('a row is stamped with its epoch and lives for its time to live', async () => {
  const { stores, client, settings } = opened
  const row = {
    deviceId: 'stamped',
    epoch: 123_456,
    sessionId: 's1',
    edgeId: 'e',
    edgeAddress: 'e:1',
    accountId: '',
    protocol: 'p',
    connectedTime: 1,
  }
  await stores.sessions.insert(row, 600)
  const query = `SELECT WRITETIME(edge_id) AS stamp, TTL(edge_id) AS ttl FROM ${settings.keyspace}.device_sessions WHERE device_id = ?`
  const { rows } = await client.execute(query, ['stamped'])
  expect(rows[0]?.get('stamp')).toBe(123_456n)
  expect(rows[0]?.get('ttl')).toBeGreaterThan(590)
})

test('accounts keep devices for 90 days, and deletes of sessions are kept for three hours', async () => {
  const { stores, client, settings } = opened
  await stores.sessions.writeAccountDevice('ttl', 'd1', systemClock.nowMicros())
  const account = await client.execute(
    `SELECT TTL(last_seen_day) AS ttl FROM ${settings.keyspace}.account_devices WHERE account_id = ?`,
    ['ttl'],
  )
  expect(account.rows[0]?.get('ttl')).toBeGreaterThan(90 * 86_400 - 60)
  const table = await client.execute(
    "SELECT gc_grace_seconds FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'device_sessions'",
    [settings.keyspace],
  )
  expect(table.rows[0]?.get('gc_grace_seconds')).toBe(3 * 3600)
})
