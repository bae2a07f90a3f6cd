import { expect, test } from 'vitest'
import type { DeepPartial, RenewEdgeRequest } from '../gen/push/internal/v1/registry.ts'
import { PushError } from '../service-kit/errors.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { seededRandom } from '../service-kit/random.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { keepLease, mintEdgeId } from './lease.ts'

function setup({ ttlMs = 30_000 } = {}) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const log = recordingLog()
  const calls: { at: number; request: DeepPartial<RenewEdgeRequest> }[] = []
  const state = { away: false, lapsed: false, aheadMs: 0, connections: 3 }
  const lease = keepLease({
    registry: {
      async renewEdge(request) {
        calls.push({ at: clock.monotonic(), request })
        if (state.away) throw new PushError('REGISTRY_UNAVAILABLE', 'away')
        return { registryTime: clock.nowMicros() + state.aheadMs * 1_000, lapsed: state.lapsed }
      },
    },
    edgeId: 'edge-1',
    name: 'edge',
    address: 'here:1',
    zone: 'z',
    connectionLimit: 10,
    connectionCount: () => state.connections,
    ttlMs,
    clock,
    random: seededRandom(1),
    log,
    metrics: createEdgeMetrics(metrics),
  })
  return { clock, metrics, log, calls, state, lease }
}

test('a short lease is asked for and renewed as often, also after a failure', async () => {
  const { clock, calls, state, lease } = setup({ ttlMs: 3_000 })
  await lease.attempted
  expect(calls[0]?.request).toMatchObject({ ttl: { seconds: 3, nanos: 0 } })
  await clock.advance(2_000)
  expect(calls.map(({ at }) => at)).toEqual([0, 1_000, 2_000])
  state.away = true
  await clock.advance(1_000)
  const failedAt = calls.length
  await clock.advance(3_000)
  // No wait is longer than a third of the lease.
  expect(calls.length - failedAt).toBeGreaterThanOrEqual(3)
  await lease.stop()
})

test('each start is another edge', () => {
  const random = seededRandom(1)
  const [one, other] = [mintEdgeId('edge', random), mintEdgeId('edge', random)]
  expect(one).toMatch(/^edge-[a-z0-9]{8}$/)
  expect(other).not.toBe(one)
})

test('the lease of 30 s is taken at once and renewed every 10 s, until stopped', async () => {
  const { clock, calls, lease } = setup()
  await lease.attempted
  await clock.advance(30_000)
  expect(calls.map(({ at }) => at)).toEqual([0, 10_000, 20_000, 30_000])
  expect(calls[0]?.request).toMatchObject({
    edgeId: 'edge-1',
    name: 'edge',
    address: 'here:1',
    zone: 'z',
    connectionCount: 3,
    connectionLimit: 10,
    draining: false,
    ttl: { seconds: 30, nanos: 0 },
  })
  await lease.stop()
  await clock.advance(60_000)
  expect(calls).toHaveLength(4)
  expect(clock.pendingTimers).toBe(0)
})

test('a failure is repeated soon, and often enough to save the lease', async () => {
  const { clock, calls, state, lease } = setup()
  state.away = true
  await lease.attempted
  await clock.advance(20_000)
  expect(calls.length).toBeGreaterThan(4)
  state.away = false
  await clock.advance(5_000)
  await lease.stop()
  expect(calls.at(-1)?.at).toBeGreaterThan(20_000)
})

test('a lapse is logged and counted', async () => {
  const { clock, metrics, log, state, lease } = setup()
  await lease.attempted
  state.lapsed = true
  await clock.advance(10_000)
  expect(log.withPhrase('the edge lease had lapsed')).toMatchObject([{ level: 'warn', facts: { edge_id: 'edge-1' } }])
  expect(await metricValue(metrics, 'push_edge_lease_lapses_total')).toBe(1)
  await lease.stop()
})

test('clocks more than 2 s apart are a metric and a warning', async () => {
  const { clock, metrics, log, state, lease } = setup()
  state.aheadMs = -1_900
  await clock.advance(10_000)
  expect(await metricValue(metrics, 'push_edge_clock_skewed_total')).toBe(0)
  expect(await metricValue(metrics, 'push_edge_clock_offset_seconds')).toBeCloseTo(-1.9)
  state.aheadMs = 2_100
  await clock.advance(10_000)
  expect(await metricValue(metrics, 'push_edge_clock_skewed_total')).toBe(1)
  expect(log.withPhrase('the clocks of this edge and of the registry are apart')).toHaveLength(1)
  await lease.stop()
})

test('a drain is told at once, and with every renewal after it', async () => {
  const { clock, calls, lease } = setup()
  await lease.attempted
  await clock.advance(1_000)
  lease.setDraining(true)
  await clock.advance(10_000)
  expect(calls.map(({ at, request }) => [at, request.draining])).toEqual([
    [0, false],
    [1_000, true],
    [11_000, true],
  ])
  await lease.stop()
})
