import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { inboxStoreSuite } from '../inbox-store.suite.ts'
import { openTestStores } from './test-keyspace.ts'

let opened: Awaited<ReturnType<typeof openTestStores>>
beforeAll(async () => {
  opened = await openTestStores()
})
afterAll(() => opened.close())

inboxStoreSuite('Cassandra', async () => {
  const { stores } = opened
  return {
    store: stores.inbox,
    sessions: stores.sessions,
    passTime: (ms) => systemClock.sleep(ms),
    close: async () => {},
  }
})

const row = {
  messageId: 'm1',
  acceptTime: 123_456,
  expireTime: 1_900_000_000_000_000,
  priority: 2,
  recovery: false,
  collapseKey: '',
  size: 1,
  message: Buffer.from([1]),
}

test('a row is stamped with its accept time, the hint with its moment, and both live for their time to live', async () => {
  const { stores, client, settings } = opened
  await stores.inbox.insert('stamped', row, 600)
  await stores.inbox.writeHint('stamped', 1_900_000_000_000_000, 700)
  const inbox = await client.execute(
    `SELECT WRITETIME(message) AS stamp, TTL(message) AS ttl FROM ${settings.keyspace}.inbox WHERE device_id = ?`,
    ['stamped'],
  )
  expect(inbox.rows[0]?.get('stamp')).toBe(123_456n)
  expect(inbox.rows[0]?.get('ttl')).toBeGreaterThan(590)
  expect(inbox.rows[0]?.get('ttl')).toBeLessThanOrEqual(600)
  const hint = await client.execute(
    `SELECT WRITETIME(inbox_until) AS stamp, TTL(inbox_until) AS ttl FROM ${settings.keyspace}.device_sessions WHERE device_id = ?`,
    ['stamped'],
  )
  expect(hint.rows[0]?.get('stamp')).toBe(1_900_000_000_000_000n)
  expect(hint.rows[0]?.get('ttl')).toBeGreaterThan(690)
  expect(hint.rows[0]?.get('ttl')).toBeLessThanOrEqual(700)
})

test('deletes are kept for three hours, and compaction looks for them by itself', async () => {
  const { client, settings } = opened
  const table = await client.execute(
    "SELECT gc_grace_seconds, compaction FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'inbox'",
    [settings.keyspace],
  )
  expect(table.rows[0]?.get('gc_grace_seconds')).toBe(3 * 3600)
  expect(table.rows[0]?.get('compaction')).toMatchObject({
    unchecked_tombstone_compaction: 'true',
    tombstone_compaction_interval: '10800',
  })
})
