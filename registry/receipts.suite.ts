import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Receipt } from '../gen/push/internal/v1/queue.ts'
import { ConfirmLevel, MessageState, StateReason } from '../gen/push/v1/message.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import type { ReceiptStore } from './receipt-store.ts'
import { createReceipts, type Receipts } from './receipts.ts'
import { createServiceLimits } from './service-limits.ts'

/** A store under test. */
export interface ReceiptsFixture {
  readonly store: ReceiptStore
  close(): Promise<void>
}

const startMicros = 1_800_000_000_000_000
const never = new AbortController().signal
const { STORED, WRITTEN, ACKNOWLEDGED, COMPLETED, DROPPED } = MessageState

/** A receipt as routers record it. */
export function receiptOf(messageId: string, state: MessageState, rest: Partial<Receipt> = {}): Receipt {
  return {
    messageId,
    deviceId: 'd1',
    outcome: {
      state,
      reason: StateReason.OFFLINE,
      detail: 'words',
      edgeId: 'edge-a-12345678',
      sessionId: 's1',
      hops: {
        accepted: { seconds: 1_800_000_000, nanos: 1000 },
        consumed: undefined,
        lookedUp: undefined,
        sentToEdge: undefined,
        written: undefined,
        answered: { seconds: 1_800_000_001, nanos: 5000 },
      },
    },
    time: startMicros,
    expireTime: startMicros + 3_600_000_000,
    resultDeadline: 0,
    confirm: ConfirmLevel.ACKNOWLEDGED,
    result: Buffer.alloc(0),
    principal: 'publisher-1',
    deviceCount: 0,
    ...rest,
  }
}

/** Receipts on a store. */
export function testReceipts(store: ReceiptStore, clock: SteeredClock, metrics = createMetrics(), log = silentLog): Receipts {
  const limits = createServiceLimits({ itemsMax: 16_384, storeStepsMax: 256, metrics })
  return createReceipts({ store, limits, clock, log, metrics })
}

/** The rules of keeping receipts, on a store. */
export function receiptsSuite(name: string, open: () => Promise<ReceiptsFixture>): void {
  describe(`keeping receipts on ${name}`, () => {
    let fixture: ReceiptsFixture
    beforeAll(async () => {
      fixture = await open()
    })
    afterAll(() => fixture.close())

    let receipts: Receipts
    let messageId: string
    let messages = 0
    beforeEach(() => {
      receipts = testReceipts(fixture.store, new SteeredClock())
      messages += 1
      messageId = `kept-message-${messages}`
    })
    const record = (...all: Receipt[]) => receipts.record({ receipts: all }, { signal: never })
    const get = async () => (await receipts.get({ messageId }, { signal: never })).receipts as Receipt[]
    const statesOf = async () =>
      (await get()).map(({ deviceId, outcome, time }) => `${deviceId} ${outcome?.state} ${time - startMicros}`)

    test('a receipt is read back whole', async () => {
      const written = receiptOf(messageId, COMPLETED, {
        confirm: ConfirmLevel.RESULT,
        resultDeadline: startMicros + 7_200_000_000,
        result: Buffer.alloc(49_152, 7),
      })
      await record(written)
      expect(await get()).toEqual([written])
    })

    test('nothing is known of a message without receipts', async () => {
      expect(await get()).toEqual([])
    })

    test('each state at each device is added beside the others', async () => {
      await record(
        receiptOf(messageId, STORED),
        receiptOf(messageId, ACKNOWLEDGED, { time: startMicros + 5 }),
        receiptOf(messageId, DROPPED, { deviceId: 'd2' }),
      )
      await record(receiptOf(messageId, WRITTEN, { time: startMicros + 3 }))
      expect((await statesOf()).toSorted()).toEqual(
        [`d1 ${STORED} 0`, `d1 ${WRITTEN} 3`, `d1 ${ACKNOWLEDGED} 5`, `d2 ${DROPPED} 0`].toSorted(),
      )
    })

    test('a repeat changes nothing, also a later one that says something else', async () => {
      const first = receiptOf(messageId, ACKNOWLEDGED)
      await record(first)
      await record(first, receiptOf(messageId, ACKNOWLEDGED, { time: startMicros + 9, principal: 'somebody else' }))
      expect(await get()).toEqual([first])
    })

    test('a message with more rows than one step reads is told whole', async () => {
      const devices = Array.from({ length: 1500 }, (_, n) => `d${10_000 + n}`)
      const all = devices.map((deviceId) => receiptOf(messageId, STORED, { deviceId }))
      await record(...all.slice(0, 1000))
      await record(...all.slice(1000))
      expect((await get()).map(({ deviceId }) => deviceId)).toEqual(devices)
    })
  })
}
