import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dayOf, type SessionRow, type SessionStore } from './session-store.ts'

/** A store under test and what the suite must do behind its back. */
export interface SessionStoreFixture {
  readonly store: SessionStore
  /** Lets the store's clock go on: at once where it is steered, by waiting where it is not. */
  passTime(ms: number): Promise<void>
  /** Sets a device's inbox hint, as the inbox will. */
  setInboxHint(deviceId: string, inboxUntil: number, ttlSeconds: number): Promise<void>
  accountDevices(accountId: string): Promise<{ deviceId: string; day: number }[]>
  close(): Promise<void>
}

/** What every SessionStore must do. */
export function sessionStoreSuite(name: string, open: () => Promise<SessionStoreFixture>): void {
  describe(`sessions in ${name}`, () => {
    let fixture: SessionStoreFixture
    let store: SessionStore
    let devices = 0
    beforeAll(async () => {
      fixture = await open()
      store = fixture.store
    })
    afterAll(() => fixture.close())

    const newDevice = () => `device-${++devices}`
    /** The store's clock, in whole milliseconds. */
    const nowMicros = async () => Math.floor((await store.clockMicros()) / 1000) * 1000
    const row = (deviceId: string, epoch: number, sessionId = 's1'): SessionRow => ({
      deviceId,
      epoch,
      sessionId,
      edgeId: 'edge-a-12345678',
      edgeAddress: '127.0.0.1:7402',
      accountId: 'account-1',
      protocol: 'push.v1.json',
      connectedTime: 1_700_000_000_000_001,
    })
    const keysOf = async (deviceId: string, limit = 1000) =>
      (await store.read(deviceId, limit)).rows.map(({ epoch, sessionId }) => `${epoch}/${sessionId}`)

    test('a row is read back whole', async () => {
      const deviceId = newDevice()
      const written = { ...row(deviceId, 8_999_999_999_999_999), accountId: '', sessionId: 'Az09_-Az09_-Az09_-Az09' }
      await store.insert(written, 60)
      expect(await store.read(deviceId, 3)).toEqual({ rows: [written], more: false, inboxUntil: 0 })
    })

    test('takeovers are counted by session, each once, up to a limit', async () => {
      const deviceId = newDevice()
      expect(await store.countTakeovers(deviceId, 10)).toBe(0)
      for (const sessionId of ['a', 'b', 'b', 'c']) await store.writeTakeover(deviceId, sessionId, 60)
      await store.writeTakeover(newDevice(), 'x', 60)
      expect([await store.countTakeovers(deviceId, 10), await store.countTakeovers(deviceId, 2)]).toEqual([3, 2])
    })

    test('a device without rows is empty', async () => {
      expect(await store.read(newDevice(), 3)).toEqual({ rows: [], more: false, inboxUntil: 0 })
    })

    test('rows come newest first, those of one epoch by the bytes of the session id', async () => {
      const deviceId = newDevice()
      for (const [epoch, sessionId] of [
        [5, 'b'],
        [7, '_'],
        [7, 'a'],
        [7, 'Z'],
        [7, '-'],
        [6, 'c'],
      ] as const) {
        await store.insert(row(deviceId, epoch, sessionId), 60)
      }
      expect(await keysOf(deviceId)).toEqual(['7/a', '7/_', '7/Z', '7/-', '6/c', '5/b'])
    })

    test('a limit cuts off the oldest and says so', async () => {
      const deviceId = newDevice()
      for (const epoch of [1, 2, 3]) await store.insert(row(deviceId, epoch), 60)
      expect(await store.read(deviceId, 2)).toMatchObject({ rows: [{ epoch: 3 }, { epoch: 2 }], more: true })
      expect(await store.read(deviceId, 3)).toMatchObject({ rows: { length: 3 }, more: false })
    })

    test('a delete removes its row and no other', async () => {
      const deviceId = newDevice()
      for (const [epoch, sessionId] of [
        [5, 's1'],
        [5, 's2'],
        [6, 's1'],
        [4, 's1'],
      ] as const) {
        await store.insert(row(deviceId, epoch, sessionId), 60)
      }
      await store.delete({ deviceId, epoch: 5, sessionId: 's1' })
      expect(await keysOf(deviceId)).toEqual(['6/s1', '5/s2', '4/s1'])
    })

    test('an insert that arrives after the delete of its key stays dead', async () => {
      const deviceId = newDevice()
      await store.delete({ deviceId, epoch: 5, sessionId: 's1' })
      await store.insert(row(deviceId, 5), 60)
      expect(await keysOf(deviceId)).toEqual([])
      await store.insert(row(deviceId, 6), 60)
      expect(await keysOf(deviceId)).toEqual(['6/s1'])
    })

    test('a delete of a row from a clock far ahead removes it, and a later row from a slow clock lives', async () => {
      const deviceId = newDevice()
      const ahead = 7_000_000_000_000_000
      await store.insert(row(deviceId, ahead), 60)
      await store.delete({ deviceId, epoch: ahead, sessionId: 's1' })
      await store.insert(row(deviceId, 1000, 's2'), 60)
      expect(await keysOf(deviceId)).toEqual(['1000/s2'])
    })

    test('a row of the distant past is written and deleted at its own epoch', async () => {
      const deviceId = newDevice()
      await store.insert(row(deviceId, 1), 60)
      await store.insert(row(deviceId, 2), 60)
      await store.delete({ deviceId, epoch: 1, sessionId: 's1' })
      expect(await keysOf(deviceId)).toEqual(['2/s1'])
    })

    test('repeats change nothing', async () => {
      const deviceId = newDevice()
      await store.insert(row(deviceId, 5), 60)
      await store.insert(row(deviceId, 5), 60)
      expect(await keysOf(deviceId)).toEqual(['5/s1'])
      await store.delete({ deviceId, epoch: 5, sessionId: 's1' })
      await store.delete({ deviceId, epoch: 5, sessionId: 's1' })
      expect(await keysOf(deviceId)).toEqual([])
    })

    test('a row ends after its time to live, and the same key lives when it is written again', async () => {
      const deviceId = newDevice()
      await store.insert(row(deviceId, 5), 1)
      await store.insert(row(deviceId, 6), 60)
      await fixture.passTime(2100)
      expect(await keysOf(deviceId)).toEqual(['6/s1'])
      await store.insert(row(deviceId, 5), 60)
      expect(await keysOf(deviceId)).toEqual(['6/s1', '5/s1'])
    })

    test('a repeat never shortens the life of a row', async () => {
      const deviceId = newDevice()
      await store.insert(row(deviceId, 5), 60)
      await store.insert(row(deviceId, 5), 1)
      await fixture.passTime(2100)
      expect(await keysOf(deviceId)).toEqual(['5/s1'])
    })

    test('the inbox hint is read with and without sessions, outlives their deletes, and ends', async () => {
      const deviceId = newDevice()
      await fixture.setInboxHint(deviceId, 1_800_000_000_000_000, 2)
      expect(await store.read(deviceId, 3)).toEqual({ rows: [], more: false, inboxUntil: 1_800_000_000_000_000 })
      await store.insert(row(deviceId, 5), 60)
      expect(await store.read(deviceId, 3)).toMatchObject({
        rows: [{ epoch: 5 }],
        more: false,
        inboxUntil: 1_800_000_000_000_000,
      })
      await store.delete({ deviceId, epoch: 5, sessionId: 's1' })
      expect(await store.read(deviceId, 3)).toMatchObject({ rows: [], inboxUntil: 1_800_000_000_000_000 })
      await fixture.passTime(3100)
      expect(await store.read(deviceId, 3)).toMatchObject({ inboxUntil: 0 })
    })

    test('devices do not mix', async () => {
      const [one, two] = [newDevice(), newDevice()]
      await Promise.all([store.insert(row(one, 5), 60), store.insert(row(two, 6), 60)])
      await store.delete({ deviceId: two, epoch: 5, sessionId: 's1' })
      expect(await keysOf(one)).toEqual(['5/s1'])
      expect(await keysOf(two)).toEqual(['6/s1'])
    })

    test('an account keeps each device once, with the last day written', async () => {
      const now = await nowMicros()
      const yesterday = now - 86_400_000_000
      await store.writeAccountDevice('account-a', 'd1', yesterday)
      await store.writeAccountDevice('account-a', 'd2', yesterday)
      await store.writeAccountDevice('account-a', 'd1', now)
      await store.writeAccountDevice('account-b', 'd1', yesterday)
      expect(await fixture.accountDevices('account-a')).toEqual([
        { deviceId: 'd1', day: dayOf(now) },
        { deviceId: 'd2', day: dayOf(yesterday) },
      ])
    })

    test('of two notes of a device the later counts, whichever comes first', async () => {
      const now = await nowMicros()
      await store.writeAccountDevice('account-n', 'd', now)
      await store.writeAccountDevice('account-n', 'd', now - 86_400_000_000)
      expect(await store.readAccountDevice('account-n', 'd')).toBe(now)
      expect(await store.readAccountDevice('account-n', 'e')).toBeUndefined()
    })

    test('a note is forgotten by its moment: a later one stays, and one that is written afterwards', async () => {
      const now = await nowMicros()
      await store.writeAccountDevice('account-f', 'd', now)
      await store.writeAccountDevice('account-f', 'other', now)
      await store.deleteAccountDevice('account-f', 'd', now - 1_000)
      expect(await store.readAccountDevices('account-f', '', 10)).toEqual(['d', 'other'])
      await store.deleteAccountDevice('account-f', 'd', now)
      expect(await store.readAccountDevices('account-f', '', 10)).toEqual(['other'])
      expect(await store.readAccountDevice('account-f', 'd')).toBeUndefined()
      await store.writeAccountDevice('account-f', 'd', now + 1_000)
      expect(await store.readAccountDevices('account-f', '', 10)).toEqual(['d', 'other'])
    })

    test('the devices of an account come in order of their ids, page by page', async () => {
      for (const deviceId of ['b', 'a', 'c', '_', 'B', '10', '9'])
        await store.writeAccountDevice('account-p', deviceId, await nowMicros())
      await store.writeAccountDevice('account-q', 'd', await nowMicros())
      expect(await store.readAccountDevices('account-p', '', 3)).toEqual(['10', '9', 'B'])
      expect(await store.readAccountDevices('account-p', 'B', 3)).toEqual(['_', 'a', 'b'])
      expect(await store.readAccountDevices('account-p', 'b', 3)).toEqual(['c'])
      expect(await store.readAccountDevices('account-p', 'c', 3)).toEqual([])
    })

    test('the clock of the store can be asked', async () => {
      const first = await store.clockMicros()
      expect(Number.isSafeInteger(first)).toBe(true)
      await fixture.passTime(10)
      expect(await store.clockMicros()).toBeGreaterThan(first)
    })
  })
}
