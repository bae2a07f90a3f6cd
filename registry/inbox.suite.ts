import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Priority } from '../gen/push/v1/message.ts'
import { shiftedClock } from '../service-kit/clock.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import type { InboxStore } from './inbox-store.ts'
import type { SessionStore } from './session-store.ts'
import { storeUnavailable } from './stores.ts'
import { type HeldInboxStore, heldInboxStore } from './testing/held-inbox-store.ts'
import { outcomesOf, startMs, type TestInbox, testInbox } from './testing/test-inbox.ts'
import { registered, testRegistry } from './testing/test-registry.ts'

/** Stores under test, of one kind and on one keyspace or file. */
export interface InboxFixture {
  readonly inbox: InboxStore
  readonly sessions: SessionStore
  close(): Promise<void>
}

const { HIGH, NORMAL, LOW } = Priority

/** The rules of keeping messages, on a store: each test loses, doubles or mixes up a message without its rule. */
export function inboxSuite(name: string, open: () => Promise<InboxFixture>): void {
  describe(`keeping messages on ${name}`, () => {
    let fixture: InboxFixture
    beforeAll(async () => {
      fixture = await open()
    })
    afterAll(() => fixture.close())

    let clock: SteeredClock
    let store: HeldInboxStore
    let a: TestInbox
    let deviceId: string
    let devices = 0
    beforeEach(() => {
      clock = new SteeredClock(startMs)
      store = heldInboxStore(fixture.inbox)
      a = testInbox(store, clock)
      devices += 1
      deviceId = `kept-device-${devices}`
    })
    const registryOf = (offsetMs = 0) => testRegistry(fixture.sessions, shiftedClock(clock, offsetMs))
    const hintSeen = async (sessionId: string) => registered(await registryOf().register({ deviceId, sessionId })).inboxUntil
    const endMicros = (ms: number) => (startMs + ms) * 1000

    test('a message is stored, found whole, and gone when it is removed', async () => {
      expect(outcomesOf(await a.store(deviceId, { id: 'm1', payloadBytes: 65_536 }))).toEqual(['stored'])
      const { entries } = await a.inbox.read({ deviceId }, { signal: new AbortController().signal })
      expect(entries).toMatchObject([
        { deviceId, message: { messageId: 'm1', principal: 'publisher-1', message: { priority: NORMAL } } },
      ])
      expect(entries[0]?.message?.message?.payload).toHaveLength(65_536)
      expect(await a.count(deviceId)).toBe(1)
      await a.remove(deviceId, 'm1')
      await a.remove(deviceId, 'm1')
      expect(await a.read(deviceId)).toEqual({ entries: [], replaced: [] })
      expect(await a.count(deviceId)).toBe(0)
    })

    test('entries come by priority, then by accept time, then by message id', async () => {
      await a.store(
        deviceId,
        { id: 'b', acceptedMs: 5 },
        { id: 'low', acceptedMs: 1, priority: LOW },
        { id: 'a', acceptedMs: 5 },
        { id: 'high', acceptedMs: 9, priority: HIGH },
        { id: 'first', acceptedMs: 4 },
        { id: 'unset', acceptedMs: 6, priority: Priority.UNSPECIFIED },
      )
      expect((await a.read(deviceId)).entries).toEqual(['high', 'first', 'a', 'b', 'unset', 'low'])
    })

    describe('storing', () => {
      test('a message that is stored late, after its removal, stays dead', async () => {
        const insert = store.hold('insert')
        const late = a.store(deviceId, { id: 'm1' })
        await insert.arrived
        await a.remove(deviceId, 'm1')
        insert.release()
        expect(outcomesOf(await late)).toEqual(['stored'])
        expect((await a.read(deviceId)).entries).toEqual([])
      })

      test('a repeat is the same entry', async () => {
        await a.store(deviceId, { id: 'm1' })
        expect(outcomesOf(await a.store(deviceId, { id: 'm1' }))).toEqual(['stored'])
        expect((await a.read(deviceId)).entries).toEqual(['m1'])
      })

      test('a device that registers while the row is written sees no hint yet; whoever sees it finds the message', async () => {
        const insert = store.hold('insert')
        const storing = a.store(deviceId, { id: 'm1' })
        await insert.arrived
        expect(await hintSeen('s1')).toBe(0)
        insert.release()
        const hint = store.hold('writeHint')
        await hint.arrived
        expect((await a.read(deviceId)).entries).toEqual(['m1'])
        hint.release()
        await storing
        expect(await hintSeen('s2')).toBe(endMicros(3_600_000))
      })

      test('a message is not stored before its hint is', async () => {
        store.fail('writeHint', storeUnavailable(new Error('timed out')), false)
        const [result] = await a.store(deviceId, { id: 'm1' })
        expect(result?.result).toMatchObject({ $case: 'error', value: { reason: 'REGISTRY_UNAVAILABLE' } })
        expect(outcomesOf(await a.store(deviceId, { id: 'm1' }))).toEqual(['stored'])
        expect(await hintSeen('s1')).toBe(endMicros(3_600_000))
      })

      test('the row that fails leaves no hint, and fails its own entry only, as unknown', async () => {
        store.fail('insert', storeUnavailable(new Error('timed out at 10.1.2.3')), false)
        const entries = await a.store(deviceId, { id: 'm1' })
        const others = await a.store(`${deviceId}-other`, { id: 'm2' })
        expect(outcomesOf([...entries, ...others])).toEqual(['error', 'stored'])
        expect(JSON.stringify(entries)).not.toContain('10.1.2.3')
        expect(await hintSeen('s1')).toBe(0)
      })

      test('a timed-out row may be there all the same, and its repeat is the same entry', async () => {
        store.fail('insert', storeUnavailable(new Error('timed out')), true)
        expect(outcomesOf(await a.store(deviceId, { id: 'm1' }))).toEqual(['error'])
        expect(outcomesOf(await a.store(deviceId, { id: 'm1' }))).toEqual(['stored'])
        expect((await a.read(deviceId)).entries).toEqual(['m1'])
      })
    })

    describe('removing', () => {
      test('one entry leaves those that were stored meanwhile, also one that was accepted before it', async () => {
        await a.store(deviceId, { id: 'newer', acceptedMs: 500 })
        const seen = await a.read(deviceId)
        await a.store(deviceId, { id: 'older', acceptedMs: 100 }, { id: 'same', acceptedMs: 500 })
        for (const id of seen.entries) await a.remove(deviceId, id, 500)
        expect((await a.read(deviceId)).entries).toEqual(['older', 'same'])
      })

      test('an entry leaves what is stored later though it was accepted earlier', async () => {
        await a.store(deviceId, { id: 'newer', acceptedMs: 500, collapseKey: 'k' })
        await a.remove(deviceId, 'newer', 500)
        await a.store(deviceId, { id: 'slow', acceptedMs: 100, collapseKey: 'k' })
        expect((await a.read(deviceId)).entries).toEqual(['slow'])
      })
    })

    describe('collapsing', () => {
      test('keeps the newest by accept time, not by arrival: a router with a slow clock does not bring back the past', async () => {
        await a.store(deviceId, { id: 'newest', acceptedMs: 5_000, collapseKey: 'k' })
        await a.store(deviceId, { id: 'slow', acceptedMs: 200, collapseKey: 'k' })
        await a.store(deviceId, { id: 'slower', acceptedMs: 100, collapseKey: 'k' })
        const { entries, replaced } = await a.read(deviceId)
        expect(entries).toEqual(['newest'])
        expect(replaced.toSorted()).toEqual(['slow', 'slower'])
        expect(await a.count(deviceId)).toBe(1)
      })

      test('breaks ties by message id', async () => {
        await a.store(deviceId, { id: 'b', collapseKey: 'k' }, { id: 'a', collapseKey: 'k' })
        expect(await a.read(deviceId)).toEqual({ entries: ['b'], replaced: ['a'] })
      })

      test('changes nothing by reading, and tells older versions without their payload', async () => {
        await a.store(deviceId, { id: 'a', collapseKey: 'k' }, { id: 'b', collapseKey: 'k' })
        const { replaced } = await a.inbox.read({ deviceId }, { signal: new AbortController().signal })
        expect(replaced).toMatchObject([{ deviceId, message: { messageId: 'a', message: { payload: { length: 0 } } } }])
        expect(await a.read(deviceId)).toEqual({ entries: ['b'], replaced: ['a'] })
        await a.remove(deviceId, 'b')
        expect(await a.read(deviceId)).toEqual({ entries: ['a'], replaced: [] })
      })

      test('does not mix principals, classes, targets, or messages without a key', async () => {
        const key = { collapseKey: 'k' }
        await a.store(
          deviceId,
          { id: '1', ...key },
          { id: '2', ...key, principal: 'publisher-2' },
          { id: '3', ...key, recovery: true },
          { id: '4', ...key, accountId: 'account-1' },
          { id: '5', ...key, accountId: deviceId },
          { id: '6', collapseKey: 'other' },
          { id: '7' },
          { id: '8' },
        )
        expect(await a.read(deviceId)).toEqual({ entries: ['1', '2', '3', '4', '5', '6', '7', '8'], replaced: [] })
      })
    })

    describe('expiring', () => {
      test('a message is found until the moment it expires, and not after it', async () => {
        await a.store(deviceId, { id: 'm1', expiresMs: 60_000 }, { id: 'm2', expiresMs: 61_000 })
        await clock.advance(59_999)
        expect((await a.read(deviceId)).entries).toEqual(['m1', 'm2'])
        expect(await a.count(deviceId)).toBe(2)
        await clock.advance(1)
        expect((await a.read(deviceId)).entries).toEqual(['m2'])
        expect(await a.count(deviceId)).toBe(1)
      })

      test('an expired newest version has no say: what it has replaced is there again', async () => {
        await a.store(deviceId, { id: 'long', collapseKey: 'k' })
        await a.store(deviceId, { id: 'short', acceptedMs: 5, expiresMs: 60_000, collapseKey: 'k' })
        expect((await a.read(deviceId)).entries).toEqual(['short'])
        await clock.advance(60_000)
        expect(await a.read(deviceId)).toEqual({ entries: ['long'], replaced: [] })
      })

      test('what has expired before it could be stored is not written', async () => {
        await clock.advance(60_000)
        expect(outcomesOf(await a.store(deviceId, { id: 'm1', expiresMs: 60_000 }))).toEqual(['stored'])
        expect(store.steps).toEqual([])
      })
    })

    describe('the hint', () => {
      test('is the latest expiry of all; an earlier one does not shorten it', async () => {
        await a.store(deviceId, { id: 'short', expiresMs: 60_000 })
        expect(await hintSeen('s1')).toBe(endMicros(60_000))
        await a.store(deviceId, { id: 'long', expiresMs: 900_000 })
        await a.store(deviceId, { id: 'short-2', expiresMs: 70_000 })
        expect(await hintSeen('s2')).toBe(endMicros(900_000))
      })

      test('is read by Register and Lookup, with and without sessions, and survives their deletes', async () => {
        const registry = registryOf()
        const lookUp = async () =>
          (await registry.sessions.lookup({ deviceIds: [deviceId], allRows: false }, { signal: new AbortController().signal }))
            .devices[0]
        await a.store(deviceId, { id: 'm1' })
        expect(await lookUp()).toMatchObject({ routes: [], more: false, inboxUntil: endMicros(3_600_000), error: undefined })
        const { epoch, inboxUntil, replacedSessions } = registered(await registry.register({ deviceId, sessionId: 's1' }))
        expect({ inboxUntil, replacedSessions }).toEqual({ inboxUntil: endMicros(3_600_000), replacedSessions: [] })
        expect(await lookUp()).toMatchObject({ routes: { length: 1 }, inboxUntil: endMicros(3_600_000) })
        await registry.unregister({ deviceId, sessionId: 's1', epoch })
        expect(await lookUp()).toMatchObject({ routes: [], more: false, inboxUntil: endMicros(3_600_000) })
        await registry.unregister({ deviceId, sessionId: 's1', epoch: 0 })
        expect(await lookUp()).toMatchObject({ routes: [], inboxUntil: endMicros(3_600_000) })
      })

      test('is not cleared by emptying the inbox', async () => {
        await a.store(deviceId, { id: 'm1' })
        await a.remove(deviceId, 'm1')
        expect(await hintSeen('s1')).toBe(endMicros(3_600_000))
      })
    })

    describe('when it is full', () => {
      // Every store is counted: the inbox holds three.
      const small = (messagesMax = 3, bytesMax = 524_288) =>
        testInbox(store, clock, { bounds: { messagesMax, bytesMax }, random: { next: () => 0, bytes: () => new Uint8Array() } })

      test('older versions of collapse keys go first, as replaced, and nothing else for want of room', async () => {
        const inbox = small()
        await inbox.store(
          deviceId,
          { id: 'low', priority: LOW },
          { id: 'k1', acceptedMs: 1, collapseKey: 'k', priority: HIGH },
          { id: 'k2', acceptedMs: 2, collapseKey: 'k', priority: HIGH },
        )
        const results = await inbox.store(deviceId, { id: 'k3', acceptedMs: 3, collapseKey: 'k' })
        expect(outcomesOf(results)).toEqual(['stored ~k1 ~k2'])
        expect(results[0]?.evictions[0]?.entry).toMatchObject({
          deviceId,
          message: { messageId: 'k1', principal: 'publisher-1', message: { collapseKey: 'k', payload: { length: 0 } } },
        })
        expect(await inbox.read(deviceId)).toEqual({ entries: ['k3', 'low'], replaced: [] })
      })

      test('a newcomer that is an older version itself is what goes', async () => {
        const inbox = small()
        await inbox.store(deviceId, { id: 'x' }, { id: 'y' }, { id: 'new', acceptedMs: 9, collapseKey: 'k' })
        expect(outcomesOf(await inbox.store(deviceId, { id: 'old', acceptedMs: 1, collapseKey: 'k' }))).toEqual(['stored ~old'])
        expect((await inbox.read(deviceId)).entries).toEqual(['x', 'y', 'new'])
      })

      test('the oldest of the lowest priority below the newcomer goes', async () => {
        const inbox = small()
        await inbox.store(
          deviceId,
          { id: 'normal', acceptedMs: 1 },
          { id: 'low-2', acceptedMs: 3, priority: LOW },
          { id: 'low-1', acceptedMs: 2, priority: LOW },
        )
        const next = async (id: string, priority: Priority) =>
          outcomesOf(await inbox.store(deviceId, { id, acceptedMs: 9, priority }))
        expect(await next('h1', HIGH)).toEqual(['stored -low-1'])
        expect(await next('h2', HIGH)).toEqual(['stored -low-2'])
        expect(await next('n2', NORMAL)).toEqual(['full'])
        expect(await next('h3', HIGH)).toEqual(['stored -normal'])
        expect(await next('h4', HIGH)).toEqual(['full'])
        expect((await inbox.read(deviceId)).entries).toEqual(['h1', 'h2', 'h3'])
      })

      test('a newcomer of the lowest priority is dropped, and nothing of it is written', async () => {
        const inbox = small()
        await inbox.store(deviceId, { id: '1', priority: LOW }, { id: '2', priority: LOW }, { id: '3', priority: LOW })
        store.steps.length = 0
        expect(outcomesOf(await inbox.store(deviceId, { id: '4', priority: LOW, expiresMs: 9_000_000 }))).toEqual(['full'])
        expect(store.steps).toEqual(['list'])
        expect(await hintSeen('s1')).toBe(endMicros(3_600_000))
      })

      test('RECOVERY never goes, whatever its priority and whoever comes', async () => {
        const inbox = small()
        const recovery = true
        await inbox.store(
          deviceId,
          { id: 'r1', acceptedMs: 1, priority: LOW, recovery },
          { id: 'low', acceptedMs: 2, priority: LOW },
          { id: 'r2', acceptedMs: 3, priority: NORMAL, recovery },
        )
        expect(outcomesOf(await inbox.store(deviceId, { id: 'h1', priority: HIGH }))).toEqual(['stored -low'])
        expect(outcomesOf(await inbox.store(deviceId, { id: 'h2', priority: HIGH }))).toEqual(['full'])
        expect(outcomesOf(await inbox.store(deviceId, { id: 'r3', priority: NORMAL, recovery }))).toEqual(['full'])
        expect((await inbox.read(deviceId)).entries).toEqual(['h1', 'r2', 'r1'])
      })

      test('as many go as make room for the bytes of a newcomer, none when all would not do', async () => {
        const inbox = small(100, 131_072)
        const low = { priority: LOW, payloadBytes: 30_000 }
        await inbox.store(deviceId, { id: '1', acceptedMs: 1, ...low }, { id: '2', acceptedMs: 2, ...low })
        await inbox.store(deviceId, { id: '3', acceptedMs: 3, ...low }, { id: '4', acceptedMs: 4, ...low })
        const big = { priority: HIGH, payloadBytes: 60_000 }
        expect(outcomesOf(await inbox.store(deviceId, { id: 'h1', ...big }))).toEqual(['stored -1 -2'])
        expect(outcomesOf(await inbox.store(deviceId, { id: 'n1', payloadBytes: 65_536 }))).toEqual(['stored -3 -4'])
        expect(outcomesOf(await inbox.store(deviceId, { id: 'n2', payloadBytes: 65_536 }))).toEqual(['full'])
        expect((await inbox.read(deviceId)).entries).toEqual(['h1', 'n1'])
      })

      test('a repeat of what waits is stored again and makes nothing go', async () => {
        const inbox = small(2)
        await inbox.store(deviceId, { id: '1', priority: LOW }, { id: '2', priority: HIGH })
        expect(outcomesOf(await inbox.store(deviceId, { id: '2', priority: HIGH }))).toEqual(['stored'])
        expect((await inbox.read(deviceId)).entries).toEqual(['2', '1'])
      })

      test('what has expired takes no room', async () => {
        const inbox = small(1)
        await inbox.store(deviceId, { id: '1', expiresMs: 60_000 })
        await clock.advance(60_000)
        expect(outcomesOf(await inbox.store(deviceId, { id: '2' }))).toEqual(['stored'])
      })

      test('nothing goes before the newcomer is safe', async () => {
        const inbox = small(1)
        await inbox.store(deviceId, { id: 'low', priority: LOW })
        store.fail('insert', storeUnavailable(new Error('timed out')), false)
        expect(outcomesOf(await inbox.store(deviceId, { id: 'high', priority: HIGH }))).toEqual(['error'])
        expect((await inbox.read(deviceId)).entries).toEqual(['low'])
        expect(outcomesOf(await inbox.store(deviceId, { id: 'high', priority: HIGH }))).toEqual(['stored -low'])
      })

      test('what could not be read does not go, what may have gone is told', async () => {
        const inbox = small(1)
        await inbox.store(deviceId, { id: 'low', priority: LOW })
        store.fail('readMessage', storeUnavailable(new Error('timed out')), false)
        expect(outcomesOf(await inbox.store(deviceId, { id: 'h1', priority: HIGH }))).toEqual(['stored'])
        expect((await inbox.read(deviceId)).entries).toEqual(['h1', 'low'])
        await inbox.remove(deviceId, 'h1')
        store.fail('delete', storeUnavailable(new Error('timed out')), true)
        expect(outcomesOf(await inbox.store(deviceId, { id: 'h2', priority: HIGH }))).toEqual(['stored -low'])
        expect((await inbox.read(deviceId)).entries).toEqual(['h2'])
      })

      test('an entry that has been removed meanwhile is not told as gone', async () => {
        const inbox = small(1)
        await inbox.store(deviceId, { id: 'low', priority: LOW })
        const insert = store.hold('insert')
        const storing = inbox.store(deviceId, { id: 'high', priority: HIGH })
        await insert.arrived
        await inbox.remove(deviceId, 'low')
        insert.release()
        expect(outcomesOf(await storing)).toEqual(['stored'])
      })

      test('one batch for one device is kept to the bound', async () => {
        const inbox = small()
        const messages = Array.from({ length: 10 }, (_, n) => ({ id: `m${n}`, acceptedMs: n }))
        const results = outcomesOf(await inbox.store(deviceId, ...messages))
        expect(results).toEqual([...Array(3).fill('stored'), ...Array(7).fill('full')])
        expect((await inbox.read(deviceId)).entries).toEqual(['m0', 'm1', 'm2'])
      })
    })
  })
}
