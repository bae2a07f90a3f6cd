import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EdgeLeaseState, type WatchEdgesResponse } from '../gen/push/internal/v1/registry.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import type { EdgeStore } from './edge-store.ts'
import { edgesSuite } from './edges.suite.ts'
import { watchResendMs } from './edges.ts'
import { openSqliteDatabase } from './sqlite/database.ts'
import { createSqliteEdgeStore } from './sqlite/edge-store.ts'
import { storeUnavailable } from './stores.ts'
import { type TestEdges, testEdges } from './testing/test-edges.ts'

const openStore = () => {
  const clock = new SteeredClock()
  return { clock, store: createSqliteEdgeStore(openSqliteDatabase(':memory:', createMetrics()), clock) }
}

edgesSuite('SQLite', async () => {
  const { clock, store } = openStore()
  return { store, passTime: (ms) => clock.advance(ms), close: () => store.close() }
})

let clock: SteeredClock
let store: EdgeStore
let failing: boolean
let registry: TestEdges
let call: AbortController
beforeEach(() => {
  const opened = openStore()
  clock = opened.clock
  failing = false
  store = {
    ...opened.store,
    readAll: () => (failing ? Promise.reject(storeUnavailable(new Error('away'))) : opened.store.readAll()),
    writeLease: (...args) => (failing ? Promise.reject(storeUnavailable(new Error('away'))) : opened.store.writeLease(...args)),
  }
  registry = testEdges(store, clock, { watchersMax: 2 })
  call = new AbortController()
})
afterEach(async () => {
  call.abort()
  await registry.edges.close()
  await store.close()
})

describe('renewing', () => {
  test('a renewal that the store did not take fails, and the edge that lapsed is told by the next one', async () => {
    await registry.renew('edge-a-00000001')
    await registry.readFor(62_000)
    expect(registry.states()).toEqual({ 'edge-a-00000001': EdgeLeaseState.LAPSED })
    failing = true
    await expect(registry.renew('edge-a-00000001')).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    expect(registry.states()).toEqual({ 'edge-a-00000001': EdgeLeaseState.LAPSED })
    failing = false
    expect(await registry.renew('edge-a-00000001')).toMatchObject({ lapsed: true })
    expect(await metricValue(registry.metrics, 'push_registry_edge_lapses_told_total')).toBe(1)
  })

  test('one failed read is enough to judge nothing', async () => {
    registry.edges.stateOf('edge-x-00000001')
    await registry.readFor(34_000)
    expect(registry.edges.stateOf('edge-x-00000001')).toBe(EdgeLeaseState.LAPSED)
    failing = true
    await registry.edges.readNow()
    expect(registry.edges.stateOf('edge-x-00000001')).toBe(EdgeLeaseState.SUSPECT)
  })

  test('counts what is believed of edges, and failed reads', async () => {
    await registry.renew('edge-a-00000001')
    await registry.readFor(2_000)
    expect(await metricValue(registry.metrics, 'push_registry_edges', { state: 'live' })).toBe(1)
    failing = true
    await registry.edges.readNow()
    expect(await metricValue(registry.metrics, 'push_registry_edge_read_failures_total')).toBe(1)
    expect(registry.edges.reading).toBe(false)
  })
})

describe('listing', () => {
  test('before the leases have been read once there is no list', () => {
    expect(() => registry.edges.list({ pageSize: 0, pageToken: '' })).toThrow(/have not been read yet/)
  })

  test('pages go through all edges by id', async () => {
    for (const n of [3, 1, 5, 2, 4]) await registry.renew(`edge-a-0000000${n}`)
    await registry.edges.readNow()
    const seen: string[] = []
    for (let pageToken = '', pages = 0; pages < 5; pages += 1) {
      const page = registry.edges.list({ pageSize: 2, pageToken })
      seen.push(...page.edges.map(({ edgeId }) => edgeId), '|')
      pageToken = page.nextPageToken
      if (pageToken === '') break
    }
    expect(seen.join(' ')).toBe('edge-a-00000001 edge-a-00000002 | edge-a-00000003 edge-a-00000004 | edge-a-00000005 |')
  })

  test('tells all of an edge, with the end of its lease by the registry clock', async () => {
    await registry.renew('edge-a-00000001', { draining: true, ttl: { seconds: 20, nanos: 0 } })
    await registry.edges.readNow()
    expect(registry.edges.list({ pageSize: 0, pageToken: '' })).toEqual({
      edges: [
        {
          edgeId: 'edge-a-00000001',
          name: 'edge-a',
          address: '127.0.0.1:7402',
          zone: 'zone-1',
          connectionCount: 3,
          connectionLimit: 100,
          draining: true,
          state: EdgeLeaseState.LIVE,
          expireTime: clock.nowMicros() + 20_000_000,
        },
      ],
      nextPageToken: '',
    })
  })
})

describe('watching', () => {
  const idsOf = ({ value }: IteratorResult<WatchEdgesResponse, void>) =>
    value === undefined ? undefined : value.edges.map(({ edgeId }) => edgeId.at(-1)).join('')

  test('sends the picture at once, at every change, and every ten seconds without one', async () => {
    await registry.renew('edge-a-00000001')
    await registry.edges.readNow()
    const watch = registry.edges.watch(call)
    expect(idsOf(await watch.next())).toBe('1')
    const second = watch.next()
    await registry.renew('edge-a-00000002')
    expect(idsOf(await second)).toBe('12')
    let came = false
    const third = watch.next().finally(() => {
      came = true
    })
    await registry.renew('edge-a-00000002', { connectionCount: 9 })
    await clock.advance(watchResendMs - 1)
    expect(came).toBe(false)
    await clock.advance(1)
    const picture = await third
    expect(idsOf(picture)).toBe('12')
    expect(picture.value?.edges[1]?.connectionCount).toBe(9)
    expect(picture.value?.registryTime).toBe(clock.nowMicros())
  })

  test('a slow reader gets only the newest picture', async () => {
    await registry.edges.readNow()
    const watch = registry.edges.watch(call)
    expect(idsOf(await watch.next())).toBe('')
    for (const n of [1, 2, 3]) await registry.renew(`edge-a-0000000${n}`)
    expect(idsOf(await watch.next())).toBe('123')
    const next = watch.next()
    await registry.renew('edge-a-00000004')
    expect(idsOf(await next)).toBe('1234')
  })

  test('sends nothing before the leases have been read once: an empty picture would say that all edges are gone', async () => {
    failing = true
    await registry.edges.readNow()
    let came = false
    const first = registry.edges
      .watch(call)
      .next()
      .finally(() => {
        came = true
      })
    await clock.advance(watchResendMs * 2)
    expect(came).toBe(false)
    failing = false
    await registry.edges.readNow()
    expect(idsOf(await first)).toBe('')
  })

  test('ends with the call, and leaves nothing behind', async () => {
    await registry.edges.readNow()
    const timers = clock.pendingTimers
    const watch = registry.edges.watch(call)
    await watch.next()
    const next = watch.next()
    call.abort()
    await expect(next).rejects.toThrow()
    expect(clock.pendingTimers).toBe(timers)
    expect(await metricValue(registry.metrics, 'push_registry_edge_watchers')).toBe(0)
    // Given up while its reader was slow.
    const slowCall = new AbortController()
    const slow = registry.edges.watch(slowCall)
    await slow.next()
    slowCall.abort()
    await expect(slow.next()).rejects.toThrow()
    expect(clock.pendingTimers).toBe(timers)
  })

  test('one watcher too many is refused', async () => {
    await registry.edges.readNow()
    const [one, two, three] = [registry.edges.watch(call), registry.edges.watch(call), registry.edges.watch(call)]
    await Promise.all([one.next(), two.next()])
    await expect(three.next()).rejects.toMatchObject({ reason: 'RATE_EXCEEDED' })
    await two.return()
    await registry.edges.watch(call).next()
    expect(await metricValue(registry.metrics, 'push_registry_edge_watchers_refused_total')).toBe(1)
  })
})
