import { createMetrics } from '../../service-kit/metrics.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { receiptStoreSuite } from '../receipt-store.suite.ts'
import { openSqliteDatabase } from './database.ts'
import { createSqliteReceiptStore } from './receipt-store.ts'

receiptStoreSuite('SQLite', async () => {
  const clock = new SteeredClock()
  const store = createSqliteReceiptStore(openSqliteDatabase(':memory:', createMetrics()), clock)
  return { store, passTime: (ms) => clock.advance(ms), close: () => store.close() }
})
