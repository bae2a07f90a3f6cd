import { expect, test } from 'vitest'
import type { DeepPartial, SessionKey, UnregisterRequest } from '../gen/push/internal/v1/registry.ts'
import { PushError } from '../service-kit/errors.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { seededRandom } from '../service-kit/random.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { createUnregistration } from './unregistration.ts'

function setup(queuedMax?: number) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const log = recordingLog()
  const calls: DeepPartial<SessionKey>[][] = []
  const state = { away: false }
  const unregistration = createUnregistration({
    registry: {
      async unregister(request: DeepPartial<UnregisterRequest>) {
        if (request.sessions?.some(({ sessionId }) => sessionId === 'wrong')) throw new PushError('INVALID_REQUEST', 'wrong')
        if (state.away) throw new PushError('REGISTRY_UNAVAILABLE', 'away')
        calls.push(request.sessions ?? [])
        return {}
      },
    },
    clock,
    random: seededRandom(1),
    log,
    metrics: createEdgeMetrics(metrics),
    ...(queuedMax !== undefined && { queuedMax }),
  })
  const key = (sessionId: string, epoch = 1): SessionKey => ({ deviceId: 'd', sessionId, epoch })
  return { clock, metrics, log, calls, state, unregistration, key }
}

test('what ends together is removed by one call; one session twice is one, with epoch 0 where the epochs differ', async () => {
  const { clock, calls, unregistration, key } = setup()
  for (const one of [key('a'), key('b'), key('b'), key('c', 5), key('c', 6)]) unregistration.add(one)
  await clock.advance(0)
  expect(calls).toEqual([[key('a'), key('b'), key('c', 0)]])
  expect(unregistration.size).toBe(0)
})

test('an outage of any length is outlived: it is tried again, ever less often, until it succeeds', async () => {
  const { clock, calls, state, unregistration, key, metrics, log } = setup()
  state.away = true
  unregistration.add(key('a'))
  await clock.advance(600_000)
  const failures = (await metricValue(metrics, 'push_edge_unregister_failures_total')) ?? 0
  expect(failures).toBeGreaterThan(50)
  expect(failures).toBeLessThan(300)
  expect(log.withPhrase('rows of ended sessions cannot be removed; trying again')).toHaveLength(1)
  state.away = false
  unregistration.add(key('b'))
  await clock.advance(11_000)
  expect(calls.flat().map(({ sessionId }) => sessionId)).toEqual(['a', 'b'])
  expect(clock.pendingTimers).toBe(0)
})

test('at the bound the oldest is given up and counted', async () => {
  const { clock, calls, state, unregistration, key, metrics } = setup(2)
  state.away = true
  for (const name of ['a', 'b', 'c']) unregistration.add(key(name))
  expect(unregistration.size).toBe(2)
  expect(await metricValue(metrics, 'push_edge_unregister_given_up_total', { reason: 'queue_full' })).toBe(1)
  state.away = false
  await clock.advance(1_000)
  expect(calls.flat().map(({ sessionId }) => sessionId)).toEqual(['b', 'c'])
})

test('closing waits for what is left, and after its grace gives it up aloud', async () => {
  const { clock, state, unregistration, key, log, metrics } = setup()
  unregistration.add(key('a'))
  await unregistration.close(1_000)
  expect(unregistration.size).toBe(0)
  const late = setup()
  late.state.away = true
  late.unregistration.add(key('a'))
  const closed = late.unregistration.close(3_000)
  await late.clock.advance(3_000)
  await closed
  expect(late.log.withPhrase('rows of ended sessions were left behind')).toMatchObject([{ facts: { session_count: 1 } }])
  expect(await metricValue(late.metrics, 'push_edge_unregister_given_up_total', { reason: 'shutdown' })).toBe(1)
  expect(late.clock.pendingTimers + clock.pendingTimers).toBe(0)
  expect([log.entries.length, state.away, await metricValue(metrics, 'push_edge_unregister_failures_total')]).toEqual([
    0,
    false,
    0,
  ])
})

test('a key that the registry rejects is given up alone, and does not keep the others', async () => {
  const { clock, calls, unregistration, key, metrics } = setup()
  for (const name of ['a', 'wrong', 'b']) unregistration.add(key(name))
  await clock.advance(5_000)
  expect(
    calls
      .flat()
      .map(({ sessionId }) => sessionId)
      .sort(),
  ).toEqual(['a', 'b'])
  expect(unregistration.size).toBe(0)
  expect(await metricValue(metrics, 'push_edge_unregister_given_up_total', { reason: 'rejected' })).toBe(1)
})
