import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ReceiptRow, ReceiptStore } from './receipt-store.ts'

/** A store under test. */
export interface ReceiptStoreFixture {
  readonly store: ReceiptStore
  /** Lets the store's clock go on: at once where it is steered, by waiting where it is not. */
  passTime(ms: number): Promise<void>
  close(): Promise<void>
}

/** What every ReceiptStore must do. */
export function receiptStoreSuite(name: string, open: () => Promise<ReceiptStoreFixture>): void {
  describe(`receipts in ${name}`, () => {
    let fixture: ReceiptStoreFixture
    let store: ReceiptStore
    let messages = 0
    beforeAll(async () => {
      fixture = await open()
      store = fixture.store
    })
    afterAll(() => fixture.close())

    const newMessage = () => `receipt-message-${++messages}`
    const row = (messageId: string, deviceId: string, state: number, time: number, bytes = [1, 2, 3]): ReceiptRow => ({
      messageId,
      deviceId,
      state,
      time,
      receipt: Buffer.from(bytes),
    })
    const read = async (messageId: string) =>
      (await store.read(messageId, undefined, 100)).map(
        ({ deviceId, state, time, receipt }) => `${deviceId}/${state}@${time}:${Buffer.from(receipt).toString('hex')}`,
      )

    test('a row is read back whole, at any time of ours', async () => {
      const messageId = newMessage()
      await store.insert(row(messageId, 'd1', 9, 1_800_000_000_000_001, [0, 255]), 60)
      await store.insert(row(messageId, 'd2', 2, 1, [7]), 60)
      expect(await read(messageId)).toEqual(['d1/9@1800000000000001:00ff', 'd2/2@1:07'])
      expect(await read(newMessage())).toEqual([])
    })

    test('each state of each device has a row of its own, and messages do not mix', async () => {
      const [one, two] = [newMessage(), newMessage()]
      for (const [deviceId, state] of [
        ['d2', 9],
        ['d1', 9],
        ['d1', 2],
      ] as const) {
        await store.insert(row(one, deviceId, state, 100), 60)
      }
      await store.insert(row(two, 'd3', 2, 100), 60)
      expect(await read(one)).toEqual(['d1/2@100:010203', 'd1/9@100:010203', 'd2/9@100:010203'])
    })

    test('what came first stays, in whatever order the writes arrive', async () => {
      const messageId = newMessage()
      await store.insert(row(messageId, 'd1', 9, 100, [1]), 60)
      await store.insert(row(messageId, 'd1', 9, 200, [2]), 60)
      await store.insert(row(messageId, 'd2', 9, 200, [2]), 60)
      await store.insert(row(messageId, 'd2', 9, 100, [1]), 60)
      expect(await read(messageId)).toEqual(['d1/9@100:01', 'd2/9@100:01'])
    })

    test('of two rows of one time one stays whole, the same in whatever order they arrive', async () => {
      const messageId = newMessage()
      await store.insert(row(messageId, 'd1', 9, 100, [1, 9]), 60)
      await store.insert(row(messageId, 'd1', 9, 100, [2, 1]), 60)
      await store.insert(row(messageId, 'd2', 9, 100, [2, 1]), 60)
      await store.insert(row(messageId, 'd2', 9, 100, [1, 9]), 60)
      expect(await read(messageId)).toEqual(['d1/9@100:0201', 'd2/9@100:0201'])
    })

    test('rows end after their time to live', async () => {
      const messageId = newMessage()
      await Promise.all([store.insert(row(messageId, 'd1', 9, 100), 3), store.insert(row(messageId, 'd2', 9, 100), 60)])
      await fixture.passTime(1_500)
      expect(await read(messageId)).toHaveLength(2)
      await fixture.passTime(1_600)
      expect(await read(messageId)).toEqual(['d2/9@100:010203'])
    })

    test('pages follow each other without a gap, also within a device', async () => {
      const messageId = newMessage()
      const keys = ['d1/2', 'd1/9', 'd1/11', 'd10/2', 'd2/2', 'd2/10']
      for (const key of keys.toReversed()) {
        const [deviceId = '', state] = key.split('/')
        await store.insert(row(messageId, deviceId, Number(state), 100), 60)
      }
      const seen: string[] = []
      let after: ReceiptRow | undefined
      for (let pages = 0; pages < 10; pages += 1) {
        const page = await store.read(messageId, after, 2)
        seen.push(...page.map(({ deviceId, state }) => `${deviceId}/${state}`))
        after = page.at(-1)
        if (page.length < 2) break
      }
      expect(seen).toEqual(keys)
    })
  })
}
