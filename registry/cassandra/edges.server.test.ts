import { afterAll, beforeAll } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { edgesSuite } from '../edges.suite.ts'
import { openTestStores } from './test-keyspace.ts'

let opened: Awaited<ReturnType<typeof openTestStores>>
beforeAll(async () => {
  opened = await openTestStores()
})
afterAll(() => opened.close())

edgesSuite('Cassandra', async () => {
  await opened.client.execute(`TRUNCATE ${opened.settings.keyspace}.edges`, [], { readTimeout: 30_000 })
  return { store: opened.stores.edges, passTime: (ms) => systemClock.sleep(ms), close: async () => {} }
})
