import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EdgeLeaseState } from '../gen/push/internal/v1/registry.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import type { EdgeStoreFixture } from './edge-store.suite.ts'
import type { EdgeStore } from './edge-store.ts'
import { leasePeriodMs, type TestEdges, testEdges } from './testing/test-edges.ts'

const { LIVE, SUSPECT, LAPSED } = EdgeLeaseState
/** Leases on real servers end by real time: short, but longer than a busy machine may stand still. */
const shortLease = { ttl: { seconds: 3, nanos: 0 } }
const leaseEnds = 4_200

/** Leases of one registry, on an empty store: what restarts and stalls look like from the outside. */
export function edgesSuite(name: string, open: () => Promise<EdgeStoreFixture>): void {
  describe(`edges on ${name}`, () => {
    let fixture: EdgeStoreFixture
    let clock: SteeredClock
    let stalled: boolean
    let registry: TestEdges
    beforeEach(async () => {
      fixture = await open()
      clock = new SteeredClock()
      stalled = false
      registry = testEdges(stallable(fixture.store), clock)
    })
    afterEach(async () => {
      await registry.edges.close()
      expect(clock.pendingTimers).toBe(0)
      await fixture.close()
    })
    const stallable = (store: EdgeStore): EdgeStore => ({
      ...store,
      readAll: () => (stalled ? Promise.reject(new Error('the store does not answer')) : store.readAll()),
    })

    test('a restarted edge is another edge: the old one lapses, the new one is live', async () => {
      await registry.renew('edge-a-00000001', shortLease)
      await registry.readFor(leasePeriodMs)
      expect(registry.states()).toEqual({ 'edge-a-00000001': LIVE })
      await registry.renew('edge-a-00000002')
      await fixture.passTime(leaseEnds)
      await registry.readFor(4_000)
      expect(registry.states()).toEqual({ 'edge-a-00000001': LAPSED, 'edge-a-00000002': LIVE })
      expect(registry.edges.stateOf('edge-a-00000001')).toBe(LAPSED)
      expect(registry.edges.stateOf('edge-a-00000002')).toBe(LIVE)
    })

    test('a lease taken on another registry is seen at the next read', async () => {
      const other = testEdges(fixture.store, clock)
      await other.renew('edge-a-00000001')
      expect(registry.edges.stateOf('edge-a-00000001')).toBe(SUSPECT)
      await registry.edges.readNow()
      expect(registry.edges.stateOf('edge-a-00000001')).toBe(LIVE)
      await other.edges.close()
    })

    test('a stall of the store that ends every lease at once lapses none of those that renew when it is over', async () => {
      const ids = Array.from({ length: 6 }, (_, n) => `edge-${n}-00000001`)
      for (const id of ids) await registry.renew(id, shortLease)
      await registry.readFor(leasePeriodMs + 2_000)
      expect(new Set(Object.values(registry.states()))).toEqual(new Set([LIVE]))

      stalled = true
      await fixture.passTime(leaseEnds)
      await registry.readFor(60_000)
      expect(registry.edges.reading).toBe(false)
      expect(new Set(Object.values(registry.states()))).toEqual(new Set([LIVE]))

      stalled = false
      await registry.readFor(leasePeriodMs)
      expect(registry.edges.reading).toBe(true)
      expect(new Set(Object.values(registry.states()))).toEqual(new Set([LIVE]))
      for (const id of ids.slice(0, 4)) expect(await registry.renew(id)).toMatchObject({ lapsed: false })
      await registry.readFor(4_000)
      // A third does not come back: that is more than edges lose by themselves, so they are given time.
      expect(Object.values(registry.states())).toEqual([LIVE, LIVE, LIVE, LIVE, SUSPECT, SUSPECT])
      expect(await registry.renew('edge-4-00000001')).toMatchObject({ lapsed: false })
      // The steered clock runs ahead of the servers' leases: the others renew as edges do.
      for (const id of ids.slice(0, 4)) await registry.renew(id, { ttl: { seconds: 300, nanos: 0 } })
      await registry.renew('edge-4-00000001', { ttl: { seconds: 300, nanos: 0 } })
      await registry.readFor(2 * leasePeriodMs)
      expect(Object.values(registry.states())).toEqual([LIVE, LIVE, LIVE, LIVE, LIVE, LAPSED])
    })

    test('an edge that lapsed is told so when it renews, and only when the store has taken its renewal', async () => {
      await registry.renew('edge-a-00000001', shortLease)
      await registry.readFor(leasePeriodMs)
      await fixture.passTime(leaseEnds)
      await registry.readFor(4_000)
      expect(registry.states()).toEqual({ 'edge-a-00000001': LAPSED })
      expect(await registry.renew('edge-a-00000001')).toMatchObject({ lapsed: true })
      expect(registry.states()).toEqual({ 'edge-a-00000001': LIVE })
    })
  })
}
