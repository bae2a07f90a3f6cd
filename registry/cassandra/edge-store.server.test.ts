import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { edgeStoreSuite } from '../edge-store.suite.ts'
import { openCassandraStores } from './stores.ts'
import { openTestStores } from './test-keyspace.ts'

let opened: Awaited<ReturnType<typeof openTestStores>>
beforeAll(async () => {
  opened = await openTestStores()
})
afterAll(() => opened.close())

edgeStoreSuite('Cassandra', async () => {
  await opened.client.execute(`TRUNCATE ${opened.settings.keyspace}.edges`, [], { readTimeout: 30_000 })
  return { store: opened.stores.edges, passTime: (ms) => systemClock.sleep(ms), close: async () => {} }
})

test('a lease is stamped by the server, not by the clock of whoever writes it', async () => {
  const { stores, client, settings } = opened
  const edge = {
    edgeId: 'edge-z-1',
    name: 'z',
    address: 'z:1',
    zone: '',
    connectionCount: 1,
    connectionLimit: 2,
    draining: false,
  }
  await stores.edges.writeLease(edge, 30)
  // Another registry whose machine is an hour behind: its renewal must still win over the one before.
  const dateNow = Date.now
  try {
    Date.now = () => dateNow() - 3_600_000
    const kit = { clock: systemClock, random: systemRandom, log: silentLog, metrics: createMetrics() }
    const behind = await openCassandraStores(settings, kit)
    await behind.edges.writeLease({ ...edge, draining: true }, 30)
    await behind.close()
  } finally {
    Date.now = dateNow
  }
  const { rows } = await client.execute(`SELECT draining FROM ${settings.keyspace}.edges WHERE edge_id = ? ALLOW FILTERING`, [
    'edge-z-1',
  ])
  expect(rows.map((row) => row.get('draining'))).toEqual([true])
})
