import { expect, test } from 'vitest'
import { watchLiveness } from './liveness.ts'
import { SteeredClock } from './testing/steered-clock.ts'

function watched() {
  const clock = new SteeredClock()
  const calls: string[] = []
  const liveness = watchLiveness({
    clock,
    intervalMs: 10_000,
    probe: () => calls.push(`probe ${clock.monotonic()}`),
    dead: () => calls.push(`dead ${clock.monotonic()}`),
  })
  return { clock, calls, liveness }
}

test('a silent edge is probed after one interval and given up after two, once', async () => {
  const { clock, calls } = watched()
  await clock.advance(100_000)
  expect(calls).toEqual(['probe 10000', 'dead 20000'])
  expect(clock.pendingTimers).toBe(0)
})

test('whatever is heard keeps the connection', async () => {
  const { clock, calls, liveness } = watched()
  await clock.advance(15_000)
  liveness.heard()
  await clock.advance(9_999)
  expect(calls).toEqual(['probe 10000'])
  await clock.advance(10_001)
  expect(calls).toEqual(['probe 10000', 'probe 25000', 'dead 35000'])
})

test('a device that slept probes anew before it judges', async () => {
  const { clock, calls, liveness } = watched()
  await clock.advance(10_000)
  await clock.sleepThrough(3_600_000)
  expect(calls).toEqual(['probe 10000', 'probe 3610000'])
  liveness.heard()
  await clock.advance(9_999)
  expect(calls).toHaveLength(2)
})

test('stopping leaves no timer', () => {
  const { clock, liveness } = watched()
  liveness.stop()
  expect(clock.pendingTimers).toBe(0)
})
