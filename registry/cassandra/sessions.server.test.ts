import { sessionsSuite } from '../sessions.suite.ts'
import { openTestStores } from './test-keyspace.ts'

sessionsSuite('Cassandra', async () => {
  const { stores, close } = await openTestStores()
  return { store: stores.sessions, close }
})
