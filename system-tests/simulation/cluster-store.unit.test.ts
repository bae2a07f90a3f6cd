import { edgeStoreSuite } from '../../registry/edge-store.suite.ts'
import { inboxStoreSuite } from '../../registry/inbox-store.suite.ts'
import { receiptStoreSuite } from '../../registry/receipt-store.suite.ts'
import { sessionStoreSuite } from '../../registry/session-store.suite.ts'
import { ClusterStore } from './cluster-store.ts'

// The simulation's store keeps what Cassandra's and SQLite's keep, or what it finds would mean nothing.

function open() {
  let nowMs = 1_800_000_000_000
  const store = new ClusterStore(() => nowMs)
  return {
    all: store,
    passTime: async (ms: number) => {
      nowMs += ms
    },
    close: async () => {},
  }
}

sessionStoreSuite('the simulation', async () => {
  const { all, ...rest } = open()
  return {
    ...rest,
    store: all.sessions,
    setInboxHint: (deviceId, inboxUntil, ttlSeconds) => all.inbox.writeHint(deviceId, inboxUntil, ttlSeconds),
    accountDevices: async (accountId) => all.accountDevices(accountId),
  }
})

inboxStoreSuite('the simulation', async () => {
  const { all, ...rest } = open()
  return { ...rest, store: all.inbox, sessions: all.sessions }
})

receiptStoreSuite('the simulation', async () => {
  const { all, ...rest } = open()
  return { ...rest, store: all.receipts }
})

edgeStoreSuite('the simulation', async () => {
  const { all, ...rest } = open()
  return { ...rest, store: all.edges }
})
