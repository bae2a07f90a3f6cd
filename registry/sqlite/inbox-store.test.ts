import { expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { inboxStoreSuite } from '../inbox-store.suite.ts'
import { openSqliteDatabase } from './database.ts'
import { createSqliteInboxStore } from './inbox-store.ts'
import { createSqliteSessionStore, tombstoneKeptMs } from './session-store.ts'

function open() {
  const clock = new SteeredClock()
  const database = openSqliteDatabase(':memory:', createMetrics())
  return {
    clock,
    database,
    store: createSqliteInboxStore(database, clock),
    sessions: createSqliteSessionStore(database, clock),
  }
}

inboxStoreSuite('SQLite', async () => {
  const { clock, store, sessions } = open()
  return { store, sessions, passTime: (ms) => clock.advance(ms), close: () => store.close() }
})

const row = (acceptTime: number) => ({
  messageId: 'm1',
  acceptTime,
  expireTime: 1_900_000_000_000_000,
  priority: 2,
  recovery: false,
  collapseKey: '',
  size: 1,
  message: Buffer.from([1]),
})

test('a late insert stays dead for three hours after the last delete, and no longer', async () => {
  const { clock, database, store } = open()
  await store.delete({ deviceId: 'd1', messageId: 'm1', acceptTime: 5 })
  await clock.advance(1_000)
  await store.delete({ deviceId: 'd1', messageId: 'm1', acceptTime: 4 })
  await clock.advance(tombstoneKeptMs - 1)
  await store.insert('d1', row(5), 60)
  expect((await store.list('d1')).rows).toEqual([])
  await clock.advance(1)
  await store.insert('d1', row(5), 60)
  expect((await store.list('d1')).rows).toHaveLength(1)
  await database.close()
})

test('a file that cannot be read is trouble of the store, never an empty inbox', async () => {
  const { database, store } = open()
  database.connection.exec('DROP TABLE inbox')
  await expect(store.list('d1')).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  await expect(store.read('d1')).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  await expect(store.readMessage('d1', 'm1')).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  await expect(store.insert('d1', row(5), 60)).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  await database.close()
})
