import { createMetrics } from '../../service-kit/metrics.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { edgeStoreSuite } from '../edge-store.suite.ts'
import { openSqliteDatabase } from './database.ts'
import { createSqliteEdgeStore } from './edge-store.ts'

edgeStoreSuite('SQLite', async () => {
  const clock = new SteeredClock()
  const store = createSqliteEdgeStore(openSqliteDatabase(':memory:', createMetrics()), clock)
  return { store, passTime: (ms) => clock.advance(ms), close: () => store.close() }
})
