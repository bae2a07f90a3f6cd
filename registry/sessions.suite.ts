import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { shiftedClock } from '../service-kit/clock.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import type { SessionStore } from './session-store.ts'
import { type HeldStore, heldStore } from './testing/held-store.ts'
import { fullId, registered, type TestRegistry, testRegistry } from './testing/test-registry.ts'

/** A store under test. */
export interface SessionsFixture {
  readonly store: SessionStore
  close(): Promise<void>
}

/** The rules of registering, on a store: each test is an interleaving that loses or doubles a session without its rule. */
export function sessionsSuite(name: string, open: () => Promise<SessionsFixture>): void {
  describe(`registering on ${name}`, () => {
    let fixture: SessionsFixture
    beforeAll(async () => {
      fixture = await open()
    })
    afterAll(() => fixture.close())

    // Two registries on one store. Their clocks stand still and agree, unless a test says otherwise.
    let clock: SteeredClock
    let store: { a: HeldStore; b: HeldStore }
    let a: TestRegistry
    let b: TestRegistry
    let deviceId: string
    let devices = 0
    beforeEach(() => {
      clock = new SteeredClock()
      store = { a: heldStore(fixture.store), b: heldStore(fixture.store) }
      a = testRegistry(store.a, clock)
      b = testRegistry(store.b, clock)
      devices += 1
      deviceId = `device-${devices}`
    })
    const registryWithClock = (offsetMs: number) => testRegistry(store.b, shiftedClock(clock, offsetMs))
    const idsOf = async () => (await a.lookup(deviceId)).map(({ sessionId }) => sessionId.replace(/-+$/, ''))

    test('a session is registered, found, and gone when it is unregistered', async () => {
      const { epoch, replacedSessions, inboxUntil } = registered(await a.register({ deviceId, sessionId: 's1' }))
      expect({ epoch, replacedSessions, inboxUntil }).toEqual({ epoch: clock.nowMicros(), replacedSessions: [], inboxUntil: 0 })
      expect(await b.lookup(deviceId)).toMatchObject([{ epoch, sessionId: fullId('s1'), edgeId: 'edge-a-12345678' }])
      await b.unregister({ deviceId, sessionId: 's1', epoch })
      expect(await idsOf()).toEqual([])
    })

    test('a newer session is told of the older one, which stays until its own edge removes it', async () => {
      registered(await a.register({ deviceId, sessionId: 's1' }))
      const newer = registered(await b.register({ deviceId, sessionId: 's2' }))
      expect(newer.replacedSessions).toMatchObject([{ sessionId: fullId('s1') }])
      expect(await idsOf()).toEqual(['s2', 's1'])
    })

    test('sessions that replace young ones are counted, at whichever registry; one that comes after the end of another is not', async () => {
      const first = registered(await a.register({ deviceId, sessionId: 's0' }))
      expect(first.recentTakeovers).toBeUndefined()
      const counts: (number | undefined)[] = []
      for (let index = 1; index <= 4; index++) {
        await clock.advance(30_000)
        const registry = index % 2 === 0 ? a : b
        const { epoch, recentTakeovers } = registered(await registry.register({ deviceId, sessionId: `s${index}` }))
        counts.push(recentTakeovers)
        // The edge of the replaced one removes its row.
        await registry.unregister({ deviceId, sessionId: `s${index - 1}`, epoch: 0 })
        if (index === 4) await registry.unregister({ deviceId, sessionId: 's4', epoch })
      }
      expect(counts).toEqual([1, 2, 3, 4])
      expect(registered(await a.register({ deviceId, sessionId: 's5' })).recentTakeovers).toBeUndefined()
      // One that has stayed for ten minutes is replaced as devices do that move.
      await clock.advance(600_000)
      expect(registered(await a.register({ deviceId, sessionId: 's6' })).recentTakeovers).toBeUndefined()
    })

    test('a repeat of a registration counts its takeover once', async () => {
      registered(await a.register({ deviceId, sessionId: 's1' }))
      store.a.loseAnswers('insert', 1)
      expect((await a.register({ deviceId, sessionId: 's2' })).$case).toBe('error')
      expect(registered(await b.register({ deviceId, sessionId: 's2' })).recentTakeovers).toBe(1)
      expect(registered(await b.register({ deviceId, sessionId: 's2' })).recentTakeovers).toBe(1)
    })

    test('an unregister that arrives late leaves the newer session alone', async () => {
      const old = registered(await a.register({ deviceId, sessionId: 's1' }))
      const now = registered(await a.register({ deviceId, sessionId: 's2', edgeId: 'edge-b-12345678' }))
      await a.unregister({ deviceId, sessionId: 's1', epoch: old.epoch })
      expect(await a.lookup(deviceId)).toMatchObject([{ edgeId: 'edge-b-12345678', epoch: now.epoch }])
      await a.unregister({ deviceId, sessionId: 's1', epoch: old.epoch })
      expect(await idsOf()).toEqual(['s2'])
    })

    test('an insert that arrives after the delete stays dead', async () => {
      const { epoch } = registered(await a.register({ deviceId, sessionId: 's1' }))
      await a.unregister({ deviceId, sessionId: 's1', epoch })
      await store.a.repeatInserts()
      expect(await idsOf()).toEqual([])
      registered(await a.register({ deviceId, sessionId: 's2' }))
      expect(await idsOf()).toEqual(['s2'])
    })

    test('a registry with a slow clock registers above what one with a fast clock has written', async () => {
      const fast = registryWithClock(3_600_000)
      const first = registered(await fast.register({ deviceId, sessionId: 's1' }))
      const second = registered(await a.register({ deviceId, sessionId: 's2' }))
      expect(second.epoch).toBe(first.epoch + 1)
      expect(second.replacedSessions).toMatchObject([{ sessionId: fullId('s1') }])
      expect(await idsOf()).toEqual(['s2', 's1'])
      await a.unregister({ deviceId, sessionId: 's1', epoch: first.epoch })
      expect(await idsOf()).toEqual(['s2'])
      // What the fast one has left deleted does not swallow what the slow one writes now.
      await a.unregister({ deviceId, sessionId: 's2', epoch: second.epoch })
      const third = registered(await a.register({ deviceId, sessionId: 's3' }))
      expect(third.epoch).toBe(clock.nowMicros())
      expect(await idsOf()).toEqual(['s3'])
    })

    for (const [aId, bId] of [
      ['s1', 's2'],
      ['s2', 's1'],
      ['s_', 'sZ'],
    ] as const) {
      test(`two registries mint one epoch for ${aId} and ${bId}: the greater id holds the device, the other is told`, async () => {
        const [insertA, insertB] = [store.a.hold('insert'), store.b.hold('insert')]
        const [readA, readB] = [store.a.hold('read', 1), store.b.hold('read', 1)]
        const results = { a: a.register({ deviceId, sessionId: aId }), b: b.register({ deviceId, sessionId: bId }) }
        await Promise.all([insertA.arrived, insertB.arrived])
        insertA.release()
        insertB.release()
        await Promise.all([readA.arrived, readB.arrived])
        readA.release()
        readB.release()
        const [resultA, resultB] = [await results.a, await results.b]
        const [winner, loser] = aId > bId ? [resultA, resultB] : [resultB, resultA]
        const [winnerId, loserId] = aId > bId ? [aId, bId] : [bId, aId]
        expect(registered(winner)).toMatchObject({ epoch: clock.nowMicros(), replacedSessions: [{ sessionId: fullId(loserId) }] })
        expect(loser).toMatchObject({
          $case: 'superseded',
          value: { by: { sessionId: fullId(winnerId), epoch: clock.nowMicros() } },
        })
      })

      test(`one epoch for ${aId} and ${bId}, the second inserted when the first was answered: one of them is told`, async () => {
        const insertB = store.b.hold('insert')
        const late = b.register({ deviceId, sessionId: bId })
        await insertB.arrived
        registered(await a.register({ deviceId, sessionId: aId }))
        insertB.release()
        const result = await late
        if (bId > aId) expect(registered(result).replacedSessions).toMatchObject([{ sessionId: fullId(aId) }])
        else expect(result).toMatchObject({ $case: 'superseded', value: { by: { sessionId: fullId(aId) } } })
      })
    }

    // Each registers by read, insert, read: every order in which the six steps can come.
    for (const order of interleavings(3, 3)) {
      test(`two connects at once, in the order ${order}: one survives, the other is told, no row is lost`, async () => {
        const steps = { a: heldAll(store.a), b: heldAll(store.b) }
        const results = { a: a.register({ deviceId, sessionId: 's1' }), b: b.register({ deviceId, sessionId: 's2' }) }
        for (const who of order) await steps[who as 'a' | 'b'].next()
        const [one, two] = [await results.a, await results.b]
        const told = (result: typeof one, id: string) =>
          (result.$case === 'superseded' ? [] : registered(result).replacedSessions).some((row) => row.sessionId === fullId(id))
        const survivors = [one, two].filter(({ $case }) => $case === 'registered')
        expect(survivors.length).toBeGreaterThan(0)
        // The survivor is on top, and what it replaced is still there for its own edge to remove.
        const rows = await a.lookup(deviceId)
        expect(rows).toHaveLength(2)
        const top = rows[0]?.sessionId === fullId('s1') ? one : two
        expect(registered(top).epoch).toBe(rows[0]?.epoch)
        const other = top === one ? two : one
        const otherId = top === one ? 's2' : 's1'
        expect(other.$case === 'superseded' || told(top, otherId)).toBe(true)
      })
    }

    test('a register repeated after a lost answer, through a registry with a slower clock, keeps its session', async () => {
      const fast = registryWithClock(5000)
      store.b.loseAnswers('insert', 1)
      expect(await fast.register({ deviceId, sessionId: 's1' })).toMatchObject({ $case: 'error' })
      const again = registered(await a.register({ deviceId, sessionId: 's1' }))
      expect(again.replacedSessions).toEqual([])
      expect(again.epoch).toBe(clock.nowMicros() + 5_000_000 + 1)
      await a.unregister({ deviceId, sessionId: 's1', epoch: 0 })
      expect(await idsOf()).toEqual([])
    })

    test('a register repeated through a registry with a faster clock keeps its session, when the first attempt comes last', async () => {
      const insert = store.a.hold('insert')
      const first = a.register({ deviceId, sessionId: 's1' })
      await insert.arrived
      const second = registered(await registryWithClock(5000).register({ deviceId, sessionId: 's1' }))
      insert.release()
      // The first attempt finds the second's row, which is its own session's: it answers that one's epoch.
      expect(registered(await first)).toMatchObject({ epoch: second.epoch, replacedSessions: [] })
      expect(await idsOf()).toEqual(['s1', 's1'])
    })

    test('a first attempt that comes late and is superseded removes nothing that its second attempt was told is valid', async () => {
      // Two registries mint one epoch for two attempts of s1: the late one must not take the row away.
      const insert = store.a.hold('insert')
      const read = store.a.hold('read', 1)
      const first = a.register({ deviceId, sessionId: 's1' })
      await insert.arrived
      const second = registered(await b.register({ deviceId, sessionId: 's1' }))
      insert.release()
      await read.arrived
      const other = registered(await b.register({ deviceId, sessionId: 's2' }))
      read.release()
      expect(await first).toMatchObject({ $case: 'superseded', value: { by: { sessionId: fullId('s2') } } })
      expect(other.epoch).toBeGreaterThan(second.epoch)
      expect(await idsOf()).toEqual(['s2', 's1'])
      expect(store.a.steps).not.toContain('delete')
      expect(store.b.steps).not.toContain('delete')
    })

    test('an attempt whose own row was removed meanwhile is superseded, though a later attempt has left another row', async () => {
      const read = store.a.hold('read', 1)
      const first = a.register({ deviceId, sessionId: 's1' })
      await read.arrived
      registered(await b.register({ deviceId, sessionId: 's1' }))
      await b.unregister({ deviceId, sessionId: 's1', epoch: clock.nowMicros() })
      read.release()
      expect(await first).toEqual({ $case: 'superseded', value: { by: undefined } })
    })

    test('a session that registers again after another one came is superseded, and nothing is written', async () => {
      const old = registered(await a.register({ deviceId, sessionId: 's1' }))
      const now = registered(await b.register({ deviceId, sessionId: 's2' }))
      const before = store.a.steps.length
      const again = await a.register({ deviceId, sessionId: 's1', lastEpoch: old.epoch })
      expect(again).toMatchObject({ $case: 'superseded', value: { by: { sessionId: fullId('s2'), epoch: now.epoch } } })
      expect(store.a.steps.slice(before)).toEqual(['read'])
      expect(await idsOf()).toEqual(['s2', 's1'])
    })

    test('a session that registers again is superseded by a session of its own epoch with a greater id', async () => {
      const insert = store.b.hold('insert')
      const late = b.register({ deviceId, sessionId: 's2' })
      await insert.arrived
      const old = registered(await a.register({ deviceId, sessionId: 's1' }))
      insert.release()
      expect(registered(await late).epoch).toBe(old.epoch)
      expect(await a.register({ deviceId, sessionId: 's1', lastEpoch: old.epoch })).toMatchObject({ $case: 'superseded' })
      expect(registered(await a.register({ deviceId, sessionId: 's2', lastEpoch: old.epoch })).replacedSessions).toHaveLength(1)
    })

    test('a session that registers again below rows of its own only, or above older ones, is registered', async () => {
      registered(await b.register({ deviceId, sessionId: 's0' }))
      const old = registered(await a.register({ deviceId, sessionId: 's1' }))
      store.a.loseAnswers('insert', 1)
      expect(await a.register({ deviceId, sessionId: 's1', lastEpoch: old.epoch })).toMatchObject({ $case: 'error' })
      const again = registered(await a.register({ deviceId, sessionId: 's1', lastEpoch: old.epoch }))
      expect(again.epoch).toBe(old.epoch + 2)
      expect(again.replacedSessions).toMatchObject([{ sessionId: fullId('s0') }])
    })

    test('unregister without the epoch removes every row of that session and no other', async () => {
      store.a.loseAnswers('insert', 2)
      expect(await a.register({ deviceId, sessionId: 's1' })).toMatchObject({ $case: 'error' })
      expect(await a.register({ deviceId, sessionId: 's1' })).toMatchObject({ $case: 'error' })
      registered(await b.register({ deviceId, sessionId: 's2' }))
      expect(registered(await a.register({ deviceId, sessionId: 's1' })).replacedSessions).toHaveLength(1)
      expect(await idsOf()).toEqual(['s1', 's2', 's1', 's1'])
      await a.unregister({ deviceId, sessionId: 's1', epoch: 0 })
      expect(await idsOf()).toEqual(['s2'])
      await a.unregister({ deviceId, sessionId: 's1', epoch: 0 })
      expect(await idsOf()).toEqual(['s2'])
    })

    test('a ghost row above a live session hides nothing, and goes by its key', async () => {
      // The ghost: an attempt whose insert comes when its session has long ended.
      const insert = store.b.hold('insert')
      const ghost = registryWithClock(5000).register({ deviceId, sessionId: 's1' })
      await insert.arrived
      await a.unregister({ deviceId, sessionId: 's1', epoch: 0 })
      const live = registered(await a.register({ deviceId, sessionId: 's2' }))
      insert.release()
      const { epoch } = registered(await ghost)
      expect(await idsOf()).toEqual(['s1', 's2'])
      const { devices } = await a.sessions.lookup(
        { deviceIds: [deviceId], allRows: false },
        { signal: new AbortController().signal },
      )
      expect(devices[0]).toMatchObject({ more: false, routes: [{ row: { epoch } }, { row: { epoch: live.epoch } }] })
      await a.unregister({ deviceId, sessionId: 's1', epoch })
      expect(await idsOf()).toEqual(['s2'])
    })

    test('a look-up gives the three newest rows and says that there are more', async () => {
      for (const sessionId of ['s1', 's2', 's3', 's4']) await a.register({ deviceId, sessionId })
      const { devices, registryTime } = await a.sessions.lookup(
        { deviceIds: [`${deviceId}-other`, deviceId], allRows: false },
        { signal: new AbortController().signal },
      )
      expect(registryTime).toBe(clock.nowMicros())
      expect(devices).toMatchObject([
        { deviceId: `${deviceId}-other`, routes: [], more: false, error: undefined },
        { deviceId, more: true, routes: ['s4', 's3', 's2'].map((id) => ({ row: { sessionId: fullId(id) } })) },
      ])
    })

    test('a call that has been given up begins no further step', async () => {
      const read = store.a.hold('read')
      const call = new AbortController()
      const result = a.register({ deviceId, sessionId: 's1', signal: call.signal })
      await read.arrived
      call.abort()
      read.release()
      await expect(result).rejects.toThrow()
      expect(store.a.steps).toEqual(['read'])
      expect(await idsOf()).toEqual([])
    })
  })
}

/** Every order of so many steps of a and b. */
function interleavings(ofA: number, ofB: number): string[] {
  if (ofA === 0) return ['b'.repeat(ofB)]
  if (ofB === 0) return ['a'.repeat(ofA)]
  return [...interleavings(ofA - 1, ofB).map((rest) => `a${rest}`), ...interleavings(ofA, ofB - 1).map((rest) => `b${rest}`)]
}

/** Holds read, insert, read of the next register; `next` lets one through and waits for the one after it to come. */
function heldAll(store: HeldStore): { next(): Promise<void> } {
  const held = [store.hold('read'), store.hold('insert'), store.hold('read')]
  let at = 0
  return {
    async next() {
      const step = held[at++]
      await step?.arrived
      step?.release()
      // The next one has come: this one has been carried out. (After the last one there is only the answer.)
      await held[at]?.arrived
    },
  }
}
