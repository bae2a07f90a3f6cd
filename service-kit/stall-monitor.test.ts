import { expect, test } from 'vitest'
import { createStallMonitor } from './stall-monitor.ts'
import { SteeredClock } from './testing/steered-clock.ts'

test('a stall above the threshold is told once, with its length', async () => {
  const clock = new SteeredClock()
  const stalls: number[] = []
  const monitor = createStallMonitor(clock, { onStall: (stallMs) => stalls.push(stallMs) })
  await clock.advance(1000)
  clock.stall(3000)
  expect(monitor.currentStallMs()).toBe(2800)
  await clock.advance(0)
  expect(stalls).toEqual([2800])
  expect(monitor.currentStallMs()).toBe(0)
  await clock.advance(5000)
  expect(stalls).toHaveLength(1)
  monitor.stop()
  expect(clock.pendingTimers).toBe(0)
})

test('a short hiccup is not told', async () => {
  const clock = new SteeredClock()
  const stalls: number[] = []
  createStallMonitor(clock, { onStall: (stallMs) => stalls.push(stallMs) })
  clock.stall(900)
  await clock.advance(1000)
  expect(stalls).toEqual([])
})
