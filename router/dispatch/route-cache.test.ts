import { expect, test } from 'vitest'
import type { SessionRow } from '../../gen/push/internal/v1/registry.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { createRouteCache } from './route-cache.ts'

function cacheOf(entryCountMax = 10) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  return {
    clock,
    metrics,
    cache: createRouteCache({ clock, metrics, random: seededRandom(3), entryCountMax, entryTtlMs: 1_000 }),
  }
}

const row = (deviceId: string, sessionId: string, epoch = 1, edgeId = 'e1'): SessionRow => ({
  deviceId,
  epoch,
  sessionId,
  edgeId,
  edgeAddress: '',
  accountId: '',
  protocol: '',
  connectedTime: 1,
})

test('an entry is forgotten after its time, none before half of it', async () => {
  const { cache, clock } = cacheOf()
  cache.set(row('d', 's'))
  await clock.advance(499)
  expect(cache.get('d')?.sessionId).toBe('s')
  await clock.advance(501)
  expect(cache.get('d')).toBeUndefined()
})

test('evicting a row that has been replaced meanwhile leaves the newer one', () => {
  const { cache } = cacheOf()
  const old = row('d', 's1', 1)
  cache.set(old)
  cache.set(row('d', 's2', 2))
  cache.evict(old)
  expect(cache.get('d')?.sessionId).toBe('s2')
  cache.evict(row('d', 's2', 2))
  expect(cache.get('d')).toBeUndefined()
})

test('above the bound the device looked up longest ago goes, and it is counted', async () => {
  const { cache, metrics } = cacheOf(2)
  cache.set(row('a', 's'))
  cache.set(row('b', 's'))
  cache.set(row('a', 's'))
  cache.set(row('c', 's'))
  expect([cache.get('a'), cache.get('b'), cache.get('c')].map((found) => found?.deviceId)).toEqual(['a', undefined, 'c'])
  expect(await metricValue(metrics, 'push_router_route_cache_evictions_total', { cause: 'full' })).toBe(1)
})

test('when an edge is gone all its routes are forgotten, and no others', () => {
  const { cache } = cacheOf()
  cache.set(row('a', 's', 1, 'e1'))
  cache.set(row('b', 's', 1, 'e2'))
  cache.evictEdge('e1')
  expect(cache.get('a')).toBeUndefined()
  expect(cache.get('b')?.edgeId).toBe('e2')
})
