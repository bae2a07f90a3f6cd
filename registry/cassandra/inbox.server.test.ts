import { inboxSuite } from '../inbox.suite.ts'
import { receiptsSuite } from '../receipts.suite.ts'
import { openTestStores } from './test-keyspace.ts'

inboxSuite('Cassandra', async () => {
  const { stores, close } = await openTestStores()
  return { inbox: stores.inbox, sessions: stores.sessions, close }
})

receiptsSuite('Cassandra', async () => {
  const { stores, close } = await openTestStores()
  return { store: stores.receipts, close }
})
