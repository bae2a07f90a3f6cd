import { expect, test } from 'vitest'
import type { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { MessageState } from '../../gen/push/v1/message.ts'
import type { WatchMessageResponse } from '../../gen/push/v1/publish.ts'
import { PushError } from '../../service-kit/errors.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { receipt } from '../testing/receipt-registry.ts'
import { createMessageWatches, registryFailureMaxMs, unknownWaitMs } from './message-watches.ts'

const { ACCEPTED, STORED, ACKNOWLEDGED, DROPPED } = MessageState
const stateNames = new Map<number | undefined, string>(Object.entries(MessageState).map(([name, number]) => [number, name]))

function bench(countMax = 10) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const registry = { rows: [] as Receipt[], down: false, readCount: 0 }
  const watches = createMessageWatches({
    clock,
    metrics,
    random: seededRandom(3),
    countMax,
    unknown: (messageId) => new PushError('MESSAGE_UNKNOWN', messageId),
  })
  const read = async () => {
    registry.readCount++
    if (registry.down) throw new PushError('REGISTRY_UNAVAILABLE', 'down')
    return registry.rows
  }
  const leaving = new AbortController()

  /** Watches, and notes each step and how it ended. */
  function watch() {
    const said: string[] = []
    const note = ({ device }: WatchMessageResponse) => said.push(`${device?.deviceId} ${stateNames.get(device?.outcome?.state)}`)
    const run = async () => {
      for await (const response of watches.watch('m', read, leaving.signal)) note(response)
    }
    const ended = run().then(
      () => said.push('end'),
      (error: Error) => said.push(error instanceof PushError ? error.reason : error.name),
    )
    return { said, ended }
  }
  const openCount = () => metricValue(metrics, 'push_router_watches')
  return { clock, metrics, registry, watches, watch, leaving, openCount }
}

test('a watch tells what is known, then each change, and ends with the final state', async () => {
  const { clock, registry, watch, openCount } = bench()
  registry.rows = [receipt('m', { state: STORED, time: 1 })]
  const { said } = watch()
  await clock.advance(5_000)
  expect(said).toEqual(['d STORED'])
  expect(await openCount()).toBe(1)
  registry.rows = [...registry.rows, receipt('m', { state: ACKNOWLEDGED, time: 2 })]
  await clock.advance(2_100)
  expect(said).toEqual(['d STORED', 'd ACKNOWLEDGED', 'end'])
  expect(await openCount()).toBe(0)
  expect(clock.pendingTimers).toBe(0)
})

test('it ends only when every device that is known is final', async () => {
  const { clock, registry, watch } = bench()
  registry.rows = [receipt('m', { deviceId: 'a', state: ACKNOWLEDGED }), receipt('m', { deviceId: 'b', state: STORED })]
  const { said } = watch()
  await clock.advance(60_000)
  expect(said).toEqual(['a ACKNOWLEDGED', 'b STORED'])
  registry.rows = [...registry.rows, receipt('m', { deviceId: 'b', state: DROPPED, time: 2 })]
  await clock.advance(2_100)
  expect(said.slice(2)).toEqual(['b DROPPED', 'end'])
})

test('of an account it ends when the last of its devices is final, also one of which nothing was known for long', async () => {
  const { clock, registry, watch } = bench()
  const expireTime = clock.nowMicros() + 600_000_000
  const counted = receipt('m', { deviceId: '', state: ACCEPTED, more: { deviceCount: 2, expireTime } })
  registry.rows = [counted, receipt('m', { deviceId: 'a', state: ACKNOWLEDGED, more: { expireTime } })]
  const { said } = watch()
  await clock.advance(120_000)
  expect(said).toEqual(['a ACKNOWLEDGED'])
  registry.rows = [...registry.rows, receipt('m', { deviceId: 'b', state: ACKNOWLEDGED, more: { expireTime } })]
  await clock.advance(2_100)
  expect(said.slice(1)).toEqual(['b ACKNOWLEDGED', 'end'])
})

test('of an account without devices it ends at once, with what is said of no device', async () => {
  const { clock, registry, watch } = bench()
  registry.rows = [receipt('m', { deviceId: '', state: DROPPED, more: { deviceCount: 0 } })]
  const { said } = watch()
  await clock.advance(0)
  expect(said).toEqual([' DROPPED', 'end'])
})

test('a device of an account of which nothing is ever recorded is waited for until a minute after the expiry', async () => {
  const { clock, registry, watch } = bench()
  const expireTime = clock.nowMicros() + 10_000_000
  registry.rows = [receipt('m', { deviceId: '', state: ACCEPTED, more: { deviceCount: 1, expireTime } })]
  const { said } = watch()
  await clock.advance(69_000)
  expect(said).toEqual([])
  await clock.advance(4_000)
  expect(said).toEqual(['end'])
  expect(clock.pendingTimers).toBe(0)
})

test('a message that expires while it is watched is final then, without any receipt', async () => {
  const { clock, registry, watch } = bench()
  registry.rows = [receipt('m', { state: STORED, more: { expireTime: clock.nowMicros() + 10_000_000 } })]
  const { said } = watch()
  await clock.advance(9_999)
  expect(said).toEqual(['d STORED'])
  await clock.advance(2_100)
  expect(said).toEqual(['d STORED', 'd EXPIRED', 'end'])
})

test('a message of which nothing is recorded yet is waited for, and is unknown after a minute', async () => {
  const known = bench()
  const first = known.watch()
  await known.clock.advance(unknownWaitMs - 3_000)
  known.registry.rows = [receipt('m', { state: ACKNOWLEDGED })]
  await known.clock.advance(2_100)
  expect(first.said).toEqual(['d ACKNOWLEDGED', 'end'])

  const { clock, watch } = bench()
  const { said } = watch()
  await clock.advance(unknownWaitMs - 1)
  expect(said).toEqual([])
  await clock.advance(2_100)
  expect(said).toEqual(['MESSAGE_UNKNOWN'])
})

test('looks come quickly after a change and seldom while nothing changes, never without a pause', async () => {
  const { clock, registry, watch, leaving } = bench()
  registry.rows = [receipt('m', { state: STORED })]
  const { ended } = watch()
  await clock.advance(200)
  expect(registry.readCount).toBeGreaterThanOrEqual(2)
  await clock.advance(60_000)
  const before = registry.readCount
  await clock.advance(60_000)
  expect(registry.readCount - before).toBeGreaterThanOrEqual(60_000 / 2_050)
  expect(registry.readCount - before).toBeLessThan(90)
  leaving.abort()
  await ended
})

test('a registry that is away for a moment is waited for; one that stays away ends the watch', async () => {
  const { clock, registry, watch } = bench()
  registry.rows = [receipt('m', { state: STORED })]
  const { said } = watch()
  await clock.advance(100)
  registry.down = true
  await clock.advance(registryFailureMaxMs - 3_000)
  registry.down = false
  await clock.advance(3_000)
  expect(said).toEqual(['d STORED'])
  registry.down = true
  await clock.advance(registryFailureMaxMs + 5_000)
  expect(said).toEqual(['d STORED', 'REGISTRY_UNAVAILABLE'])
})

test('a caller that goes leaves no timer and no watch behind', async () => {
  const { clock, watch, leaving, openCount } = bench()
  const { said, ended } = watch()
  await clock.advance(1_000)
  expect(await openCount()).toBe(1)
  leaving.abort()
  await ended
  expect(said).toEqual(['AbortError'])
  expect(clock.pendingTimers).toBe(0)
  expect(await openCount()).toBe(0)
})

test('above the bound a watch is refused, counted, and there is room again when one has ended', async () => {
  const { clock, metrics, registry, watch } = bench(1)
  const first = watch()
  await clock.advance(10)
  const second = watch()
  await second.ended
  expect(second.said).toEqual(['RATE_EXCEEDED'])
  expect(await metricValue(metrics, 'push_router_watches_refused_total')).toBe(1)
  registry.rows = [receipt('m', { state: ACKNOWLEDGED })]
  await clock.advance(2_100)
  expect(first.said.at(-1)).toBe('end')
  const third = watch()
  await third.ended
  expect(third.said).toEqual(['d ACKNOWLEDGED', 'end'])
})
