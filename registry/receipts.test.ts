import { beforeEach, expect, test } from 'vitest'
import { MessageState } from '../gen/push/v1/message.ts'
import { createMetrics, type Metrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import type { ReceiptRow, ReceiptStore } from './receipt-store.ts'
import { receiptOf, receiptsSuite, testReceipts } from './receipts.suite.ts'
import { openSqliteDatabase } from './sqlite/database.ts'
import { createSqliteReceiptStore } from './sqlite/receipt-store.ts'
import { storeUnavailable } from './stores.ts'

const openStore = (clock: SteeredClock) => createSqliteReceiptStore(openSqliteDatabase(':memory:', createMetrics()), clock)

receiptsSuite('SQLite', async () => {
  const store = openStore(new SteeredClock())
  return { store, close: () => store.close() }
})

let clock: SteeredClock
let metrics: Metrics
beforeEach(() => {
  clock = new SteeredClock()
  metrics = createMetrics()
})
const never = new AbortController().signal
const { STORED, ACKNOWLEDGED } = MessageState
const day = 86_400_000
const micros = () => clock.nowMicros()

test('receipts end a day after the message has expired and its result is due, to the second', async () => {
  const store = openStore(clock)
  const receipts = testReceipts(store, clock, metrics)
  const expireTime = micros() + 60_000_000
  await receipts.record({ receipts: [receiptOf('m1', STORED, { expireTime })] }, { signal: never })
  await receipts.record(
    { receipts: [receiptOf('m2', ACKNOWLEDGED, { expireTime, resultDeadline: micros() + 600_000_000 })] },
    { signal: never },
  )
  const known = async () =>
    Promise.all(['m1', 'm2'].map(async (messageId) => (await receipts.get({ messageId }, { signal: never })).receipts?.length))
  await clock.advance(60_000 + day - 1)
  expect(await known()).toEqual([1, 1])
  await clock.advance(1)
  expect(await known()).toEqual([0, 1])
  await clock.advance(540_000 - 1)
  expect(await known()).toEqual([0, 1])
  await clock.advance(1)
  expect(await known()).toEqual([0, 0])
})

test('what comes later than that is counted and not written', async () => {
  const receipts = testReceipts(openStore(clock), clock, metrics)
  const expireTime = micros() + 1_000_000
  await clock.advance(1_000 + day)
  await receipts.record({ receipts: [receiptOf('m1', ACKNOWLEDGED, { expireTime })] }, { signal: never })
  expect((await receipts.get({ messageId: 'm1' }, { signal: never })).receipts).toEqual([])
  expect(await metricValue(metrics, 'push_registry_receipts_total', { result: 'too_late' })).toBe(1)
})

test('trouble of the store fails the call, when all others of it are recorded; a repeat makes it whole', async () => {
  const store = openStore(clock)
  const trouble = new Set(['d1'])
  const flaky: ReceiptStore = {
    ...store,
    insert: (row, ttlSeconds) =>
      trouble.has(row.deviceId) ? Promise.reject(storeUnavailable(new Error('timed out'))) : store.insert(row, ttlSeconds),
  }
  const receipts = testReceipts(flaky, clock, metrics)
  const request = { receipts: ['d1', 'd2', 'd3'].map((deviceId) => receiptOf('m1', STORED, { deviceId })) }
  await expect(receipts.record(request, { signal: never })).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  const known = async () => (await receipts.get({ messageId: 'm1' }, { signal: never })).receipts?.map(({ deviceId }) => deviceId)
  expect(await known()).toEqual(['d2', 'd3'])
  trouble.clear()
  await receipts.record(request, { signal: never })
  expect(await known()).toEqual(['d1', 'd2', 'd3'])
  expect(await metricValue(metrics, 'push_registry_receipts_total', { result: 'error' })).toBe(1)
  expect(await metricValue(metrics, 'push_registry_receipts_total', { result: 'recorded' })).toBe(5)
})

test('a store that does not answer never reads as a message without receipts', async () => {
  const store: ReceiptStore = { ...openStore(clock), read: () => Promise.reject(storeUnavailable(new Error('away'))) }
  const receipts = testReceipts(store, clock, metrics)
  await expect(receipts.get({ messageId: 'm1' }, { signal: never })).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
})

test('more devices, or more bytes, than fit one answer are cut off and counted', async () => {
  const manyRows = (bytes: number): ReceiptStore => ({
    ...openStore(clock),
    async read(messageId, after, limit) {
      const from = after === undefined ? 0 : Number(after.deviceId.slice(1)) + 1
      const rows = Array.from(
        { length: limit },
        (_, n): ReceiptRow => ({ messageId, deviceId: `d${from + n}`, state: 2, time: 1, receipt: Buffer.alloc(bytes, 0xff) }),
      )
      return rows.filter(({ deviceId }) => Number(deviceId.slice(1)) < 12_000)
    },
  })
  // Empty bytes are a receipt of nothing.
  const few = await testReceipts(manyRows(0), clock, metrics).get({ messageId: 'm1' }, { signal: never })
  expect(few.receipts).toHaveLength(10_000)
  expect(await metricValue(metrics, 'push_registry_receipts_cut_total')).toBe(1)
  const log = recordingLog()
  const big = await testReceipts(manyRows(40_000), clock, metrics, log).get({ messageId: 'm1' }, { signal: never })
  expect(await metricValue(metrics, 'push_registry_receipts_cut_total')).toBe(2)
  // These bytes are no receipt: each of the 78 that fit is left out and told.
  expect(big.receipts).toEqual([])
  expect(log.withPhrase('receipt cannot be read; left out')).toHaveLength(78)
  expect(await metricValue(metrics, 'push_registry_receipts_undecodable_total')).toBe(78)
})
