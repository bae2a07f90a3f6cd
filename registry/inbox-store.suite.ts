import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InboxRow, type InboxStore, inboxReadLimitMax } from './inbox-store.ts'
import type { SessionStore } from './session-store.ts'

/** A store under test, with the sessions that its hints are read with. */
export interface InboxStoreFixture {
  readonly store: InboxStore
  readonly sessions: SessionStore
  /** Lets the store's clock go on: at once where it is steered, by waiting where it is not. */
  passTime(ms: number): Promise<void>
  close(): Promise<void>
}

/** What every InboxStore must do. */
export function inboxStoreSuite(name: string, open: () => Promise<InboxStoreFixture>): void {
  describe(`inboxes in ${name}`, () => {
    let fixture: InboxStoreFixture
    let store: InboxStore
    let devices = 0
    beforeAll(async () => {
      fixture = await open()
      store = fixture.store
    })
    afterAll(() => fixture.close())

    const newDevice = () => `inbox-device-${++devices}`
    const row = (messageId: string, acceptTime: number, rest: Partial<InboxRow> = {}): InboxRow => ({
      messageId,
      acceptTime,
      expireTime: 1_800_000_000_000_000,
      priority: 2,
      recovery: false,
      collapseKey: '',
      size: 3,
      message: Buffer.from([1, 2, 3]),
      ...rest,
    })
    const idsOf = async (deviceId: string) => (await store.list(deviceId)).rows.map(({ messageId }) => messageId).sort()
    const hintOf = async (deviceId: string) => (await fixture.sessions.read(deviceId, 3)).inboxUntil

    test('a row is read back whole, with and without its message', async () => {
      const deviceId = newDevice()
      const written = row('m1', 8_999_999_999_999_999, {
        expireTime: 8_999_999_999_999_999,
        priority: 1,
        recovery: true,
        collapseKey: '["p",1,"deviceId","d","k"]',
        size: 4,
        message: Buffer.from([0, 255, 128, 7]),
      })
      await store.insert(deviceId, written, 60)
      const { message, ...summary } = written
      expect(await store.list(deviceId)).toEqual({ rows: [summary], more: false })
      const read = await store.read(deviceId)
      expect(read).toMatchObject({ rows: [summary], more: false })
      expect(Buffer.from(read.rows[0]?.message ?? [])).toEqual(message)
      expect(Buffer.from((await store.readMessage(deviceId, 'm1')) ?? [])).toEqual(message)
    })

    test('an inbox without rows is empty, and so is a message that is not there', async () => {
      const deviceId = newDevice()
      expect(await store.list(deviceId)).toEqual({ rows: [], more: false })
      expect(await store.read(deviceId)).toEqual({ rows: [], more: false })
      expect(await store.readMessage(deviceId, 'm1')).toBeUndefined()
    })

    test('a delete removes its row and no other, whenever the others were accepted', async () => {
      const deviceId = newDevice()
      for (const [id, acceptTime] of [
        ['m1', 10],
        ['m2', 20],
        ['m3', 20],
        ['m4', 30],
      ] as const) {
        await store.insert(deviceId, row(id, acceptTime), 60)
      }
      await store.delete({ deviceId, messageId: 'm2', acceptTime: 20 })
      expect(await idsOf(deviceId)).toEqual(['m1', 'm3', 'm4'])
    })

    test('what was accepted before and is stored after the removal of others stays', async () => {
      const deviceId = newDevice()
      await store.insert(deviceId, row('m2', 20), 60)
      await store.delete({ deviceId, messageId: 'm2', acceptTime: 20 })
      await store.insert(deviceId, row('m1', 10), 60)
      expect(await idsOf(deviceId)).toEqual(['m1'])
    })

    test('an insert that arrives after the delete of its key stays dead, a later acceptance of that message lives', async () => {
      const deviceId = newDevice()
      await store.delete({ deviceId, messageId: 'm1', acceptTime: 20 })
      await store.insert(deviceId, row('m1', 20), 60)
      await store.insert(deviceId, row('m1', 19), 60)
      expect(await idsOf(deviceId)).toEqual([])
      await store.insert(deviceId, row('m1', 21), 60)
      expect(await idsOf(deviceId)).toEqual(['m1'])
      await store.delete({ deviceId, messageId: 'm1', acceptTime: 20 })
      expect(await idsOf(deviceId)).toEqual(['m1'])
    })

    test('of two acceptances of one message the later stays, in whatever order they come', async () => {
      const deviceId = newDevice()
      await store.insert(deviceId, row('m1', 20, { priority: 1 }), 60)
      await store.insert(deviceId, row('m1', 10, { priority: 3 }), 60)
      expect((await store.list(deviceId)).rows).toMatchObject([{ acceptTime: 20, priority: 1 }])
      await store.insert(deviceId, row('m1', 30, { priority: 3 }), 60)
      expect((await store.list(deviceId)).rows).toMatchObject([{ acceptTime: 30, priority: 3 }])
    })

    test('repeats change nothing', async () => {
      const deviceId = newDevice()
      for (let n = 0; n < 2; n += 1) await store.insert(deviceId, row('m1', 20), 60)
      expect(await idsOf(deviceId)).toEqual(['m1'])
      for (let n = 0; n < 2; n += 1) await store.delete({ deviceId, messageId: 'm1', acceptTime: 20 })
      expect(await idsOf(deviceId)).toEqual([])
    })

    test('a row ends after its time to live, to the second, and a repeat never shortens it', async () => {
      const deviceId = newDevice()
      await Promise.all([
        store.insert(deviceId, row('short', 10), 3),
        store.insert(deviceId, row('long', 10), 60),
        store.insert(deviceId, row('repeated', 10), 60),
      ])
      await store.insert(deviceId, row('repeated', 10), 2)
      await fixture.passTime(1_500)
      expect(await idsOf(deviceId)).toEqual(['long', 'repeated', 'short'])
      await fixture.passTime(1_600)
      expect(await idsOf(deviceId)).toEqual(['long', 'repeated'])
      expect(await store.readMessage(deviceId, 'short')).toBeUndefined()
      expect((await store.read(deviceId)).rows).toHaveLength(2)
    })

    test('more than is read at most is told', async () => {
      const deviceId = newDevice()
      const ids = Array.from({ length: inboxReadLimitMax + 1 }, (_, n) => `m${n}`)
      await Promise.all(ids.slice(1).map((id) => store.insert(deviceId, row(id, 10), 60)))
      expect(await store.list(deviceId)).toMatchObject({ rows: { length: inboxReadLimitMax }, more: false })
      await store.insert(deviceId, row('m0', 10), 60)
      expect(await store.list(deviceId)).toMatchObject({ rows: { length: inboxReadLimitMax }, more: true })
      expect(await store.read(deviceId)).toMatchObject({ rows: { length: inboxReadLimitMax }, more: true })
    })

    test('devices do not mix', async () => {
      const [one, two] = [newDevice(), newDevice()]
      await Promise.all([store.insert(one, row('m1', 10), 60), store.insert(two, row('m1', 10), 60)])
      await store.delete({ deviceId: two, messageId: 'm1', acceptTime: 10 })
      expect(await idsOf(one)).toEqual(['m1'])
      expect(await idsOf(two)).toEqual([])
    })

    describe('the hint', () => {
      const [early, late] = [1_800_000_000_000_000, 1_800_000_900_000_000]
      const session = (deviceId: string, epoch: number) => ({
        deviceId,
        epoch,
        sessionId: 's1',
        edgeId: 'edge-a-12345678',
        edgeAddress: '127.0.0.1:7402',
        accountId: '',
        protocol: 'push.v1.json',
        connectedTime: 1,
      })

      test('is the latest moment, whatever the order of the writes', async () => {
        const [one, two] = [newDevice(), newDevice()]
        await store.writeHint(one, early, 60)
        await store.writeHint(one, late, 60)
        await store.writeHint(two, late, 60)
        await store.writeHint(two, early, 60)
        expect(await hintOf(one)).toBe(late)
        expect(await hintOf(two)).toBe(late)
      })

      test('ends by its own time to live, which an earlier moment does not shorten or stretch', async () => {
        const [one, two] = [newDevice(), newDevice()]
        await store.writeHint(one, late, 60)
        await store.writeHint(one, early, 1)
        await store.writeHint(two, late, 1)
        await store.writeHint(two, early, 60)
        await fixture.passTime(2_100)
        expect(await hintOf(one)).toBe(late)
        expect(await hintOf(two)).toBe(0)
        await store.writeHint(two, late + 1, 60)
        expect(await hintOf(two)).toBe(late + 1)
      })

      test('outlives every session, and a device with nothing but a hint has no session', async () => {
        const deviceId = newDevice()
        await store.writeHint(deviceId, early, 60)
        expect(await fixture.sessions.read(deviceId, 1)).toEqual({ rows: [], more: false, inboxUntil: early })
        await fixture.sessions.insert(session(deviceId, 5), 60)
        await fixture.sessions.insert(session(deviceId, early + 5), 60)
        expect(await fixture.sessions.read(deviceId, 1)).toMatchObject({
          rows: [{ epoch: early + 5 }],
          more: true,
          inboxUntil: early,
        })
        await fixture.sessions.delete({ deviceId, epoch: 5, sessionId: 's1' })
        await fixture.sessions.delete({ deviceId, epoch: early + 5, sessionId: 's1' })
        expect(await fixture.sessions.read(deviceId, 1000)).toEqual({ rows: [], more: false, inboxUntil: early })
      })

      test('is not touched by rows of the inbox that go', async () => {
        const deviceId = newDevice()
        await store.insert(deviceId, row('m1', 10), 60)
        await store.writeHint(deviceId, early, 60)
        await store.delete({ deviceId, messageId: 'm1', acceptTime: 10 })
        expect(await hintOf(deviceId)).toBe(early)
      })
    })
  })
}
