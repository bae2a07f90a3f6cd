import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { EdgeRecord, EdgeStore } from './edge-store.ts'

/** A store under test, empty. */
export interface EdgeStoreFixture {
  readonly store: EdgeStore
  /** Lets the store's clock go on: at once where it is steered, by waiting where it is not. */
  passTime(ms: number): Promise<void>
  close(): Promise<void>
}

/** What every EdgeStore must do. */
export function edgeStoreSuite(name: string, open: () => Promise<EdgeStoreFixture>): void {
  describe(`leases in ${name}`, () => {
    let fixture: EdgeStoreFixture
    let store: EdgeStore
    beforeEach(async () => {
      fixture = await open()
      store = fixture.store
    })
    afterEach(() => fixture.close())

    const edge = (edgeId: string, rest: Partial<EdgeRecord> = {}): EdgeRecord => ({
      edgeId,
      name: 'edge-a',
      address: '10.0.0.1:7402',
      zone: 'zone-1',
      connectionCount: 17,
      connectionLimit: 20_000,
      draining: false,
      ...rest,
    })
    const byId = async () => (await store.readAll()).sort((a, b) => (a.edge.edgeId < b.edge.edgeId ? -1 : 1))

    test('there are no leases at first', async () => {
      expect(await store.readAll()).toEqual([])
    })

    test('leases are read back whole, with the time they have left', async () => {
      const [a, b] = [edge('edge-a-1'), edge('edge-b-1', { name: 'edge-b', zone: '', draining: true })]
      await store.writeLease(a, 30)
      await store.writeLease(b, 300)
      const leases = await byId()
      expect(leases.map((lease) => lease.edge)).toEqual([a, b])
      expect(leases[0]?.remainingMs).toBeGreaterThanOrEqual(25_000)
      expect(leases[0]?.remainingMs).toBeLessThanOrEqual(30_000)
      expect(leases[1]?.remainingMs).toBeGreaterThanOrEqual(295_000)
    })

    test('a renewal replaces what the edge said before', async () => {
      await store.writeLease(edge('edge-a-1'), 30)
      const now = edge('edge-a-1', { connectionCount: 18, draining: true, zone: '', address: '10.0.0.2:7402' })
      await store.writeLease(now, 30)
      expect((await byId()).map((lease) => lease.edge)).toEqual([now])
    })

    test('a lease that is not renewed ends by itself, a renewed one does not', async () => {
      await store.writeLease(edge('edge-a-1'), 2)
      await store.writeLease(edge('edge-b-1'), 2)
      await fixture.passTime(1000)
      await store.writeLease(edge('edge-a-1'), 30)
      await fixture.passTime(2100)
      expect((await byId()).map((lease) => lease.edge.edgeId)).toEqual(['edge-a-1'])
    })

    test('many leases are all read', async () => {
      const ids = Array.from({ length: 100 }, (_, n) => `edge-${String(n).padStart(3, '0')}`)
      await Promise.all(ids.map((id) => store.writeLease(edge(id), 30)))
      expect((await byId()).map((lease) => lease.edge.edgeId)).toEqual(ids)
    })

    test('the clock of the store can be asked', async () => {
      expect(Number.isSafeInteger(await store.clockMicros())).toBe(true)
    })
  })
}
