import { createMetrics } from '../service-kit/metrics.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { sessionsSuite } from './sessions.suite.ts'
import { openSqliteDatabase } from './sqlite/database.ts'
import { createSqliteSessionStore } from './sqlite/session-store.ts'

sessionsSuite('SQLite', async () => {
  const store = createSqliteSessionStore(openSqliteDatabase(':memory:', createMetrics()), new SteeredClock())
  return { store, close: () => store.close() }
})
