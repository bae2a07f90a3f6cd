import { afterAll, beforeAll } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { receiptStoreSuite } from '../receipt-store.suite.ts'
import { openTestStores } from './test-keyspace.ts'

let opened: Awaited<ReturnType<typeof openTestStores>>
beforeAll(async () => {
  opened = await openTestStores()
})
afterAll(() => opened.close())

receiptStoreSuite('Cassandra', async () => ({
  store: opened.stores.receipts,
  passTime: (ms) => systemClock.sleep(ms),
  close: async () => {},
}))
