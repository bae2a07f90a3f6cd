import { expect, test } from 'vitest'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { sessionStoreSuite } from '../session-store.suite.ts'
import { openSqliteDatabase } from './database.ts'
import { createSqliteSessionStore, tombstoneKeptMs } from './session-store.ts'
import { startSweep, sweepPeriodMs, sweptRowsMax } from './sweep.ts'

function open() {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const database = openSqliteDatabase(':memory:', metrics)
  return { clock, metrics, database, store: createSqliteSessionStore(database, clock) }
}

sessionStoreSuite('SQLite', async () => {
  const { clock, database, store } = open()
  return {
    store,
    passTime: (ms) => clock.advance(ms),
    async setInboxHint(deviceId, inboxUntil, ttlSeconds) {
      database.connection
        .prepare('INSERT INTO device_hints VALUES (?, ?, ?)')
        .run(deviceId, inboxUntil, clock.now() + ttlSeconds * 1000)
    },
    async accountDevices(accountId) {
      return database.connection
        .prepare('SELECT device_id, last_seen_day FROM account_devices WHERE account_id = ? ORDER BY device_id')
        .all(accountId)
        .map((row) => ({ deviceId: String(row.device_id), day: Number(row.last_seen_day) }))
    },
    close: () => store.close(),
  }
})

const row = (epoch: number, sessionId = 's1') => ({
  deviceId: 'd1',
  epoch,
  sessionId,
  edgeId: 'e',
  edgeAddress: 'e:1',
  accountId: '',
  protocol: 'push.v1.json',
  connectedTime: 1,
})

test('a late insert stays dead for three hours, and no longer', async () => {
  const { clock, database, store } = open()
  await store.delete({ deviceId: 'd1', epoch: 5, sessionId: 's1' })
  await clock.advance(tombstoneKeptMs - 1)
  await store.insert(row(5), 60)
  expect((await store.read('d1', 3)).rows).toHaveLength(0)
  await clock.advance(1)
  await store.insert(row(5), 60)
  expect((await store.read('d1', 3)).rows).toHaveLength(1)
  await database.close()
})

test('a device is forgotten by its account 90 days after it was last noted', async () => {
  const { clock, database, store } = open()
  await store.writeAccountDevice('account-1', 'd1', clock.nowMicros())
  await clock.advance(90 * 86_400_000 - 1)
  expect(await store.readAccountDevices('account-1', '', 10)).toEqual(['d1'])
  await clock.advance(1)
  expect(await store.readAccountDevices('account-1', '', 10)).toEqual([])
  await database.close()
})

test('ended rows and tombstones are swept, a bounded number each second', async () => {
  const { clock, metrics, database, store } = open()
  const sweep = startSweep({ database, clock, log: silentLog, metrics })
  const count = (table: string) => Number(database.connection.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.n)
  const rows = sweptRowsMax + 100
  await Promise.all(Array.from({ length: rows }, (_, n) => store.insert(row(n + 1), 10)))
  await store.insert(row(rows + 1), 3600 * 24)
  await store.delete({ deviceId: 'd1', epoch: 1, sessionId: 'other' })
  await clock.advance(9_000)
  await database.write(() => {})
  expect(count('device_sessions')).toBe(rows + 1)
  await clock.advance(sweepPeriodMs)
  await database.write(() => {})
  expect(count('device_sessions')).toBe(rows + 1 - sweptRowsMax)
  await clock.advance(sweepPeriodMs)
  await database.write(() => {})
  expect(count('device_sessions')).toBe(1)
  expect(count('session_tombstones')).toBe(1)
  await clock.advance(tombstoneKeptMs)
  await database.write(() => {})
  expect(count('session_tombstones')).toBe(0)
  expect(await metricValue(metrics, 'push_registry_sqlite_swept_rows_total', { table: 'device_sessions' })).toBe(rows)
  sweep.close()
  await database.close()
  expect(clock.pendingTimers).toBe(0)
})
