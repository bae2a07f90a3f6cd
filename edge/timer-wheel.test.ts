import { expect, test } from 'vitest'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createTimerWheel } from './timer-wheel.ts'

const setup = () => {
  const clock = new SteeredClock()
  const wheel = createTimerWheel({ clock, tickMs: 100, slotCount: 8 })
  const item = (next: (nowMs: number) => number = () => Number.POSITIVE_INFINITY) => {
    const firedAt: number[] = []
    return {
      wheelSlot: -1,
      firedAt,
      due(nowMs: number) {
        firedAt.push(nowMs)
        return next(nowMs)
      },
    }
  }
  return { clock, wheel, item }
}

test('nothing is early, nothing late by more than a tick, also beyond one turn of the wheel', async () => {
  const { clock, wheel, item } = setup()
  const delays = [1, 99, 100, 101, 750, 800, 801, 5_000, 12_345]
  const items = delays.map((delay) => {
    const one = item()
    wheel.schedule(one, delay)
    return one
  })
  for (let step = 0; step < 2_000; step++) await clock.advance(7)
  items.forEach(({ firedAt }, index) => {
    expect(firedAt).toHaveLength(1)
    expect(firedAt[0]).toBeGreaterThanOrEqual(delays[index] ?? 0)
    expect(firedAt[0]).toBeLessThan((delays[index] ?? 0) + 100 + 7)
  })
  expect(wheel.size).toBe(0)
  wheel.stop()
  expect(clock.pendingTimers).toBe(0)
})

test('an item comes again when it says so', async () => {
  const { clock, wheel, item } = setup()
  const one = item((nowMs) => (nowMs < 350 ? nowMs + 100 : Number.POSITIVE_INFINITY))
  wheel.schedule(one, 100)
  await clock.advance(1_000)
  expect(one.firedAt).toEqual([100, 200, 300, 400])
})

test('a new moment replaces the old one, and a removed item does not fire', async () => {
  const { clock, wheel, item } = setup()
  const [moved, removed] = [item(), item()]
  wheel.schedule(moved, 100)
  wheel.schedule(moved, 300)
  wheel.schedule(removed, 100)
  wheel.remove(removed)
  await clock.advance(1_000)
  expect(moved.firedAt).toEqual([300])
  expect(removed.firedAt).toEqual([])
})

test('an item that removes another of the same tick keeps it from firing', async () => {
  const { clock, wheel, item } = setup()
  const second = item()
  const first = item(() => {
    wheel.remove(second)
    return Number.POSITIVE_INFINITY
  })
  wheel.schedule(first, 100)
  wheel.schedule(second, 100)
  await clock.advance(200)
  expect(second.firedAt).toEqual([])
})

test('after a stall of several turns everything due fires once', async () => {
  const { clock, wheel, item } = setup()
  const items = [150, 700, 3_000].map((dueAt) => {
    const one = item()
    wheel.schedule(one, dueAt)
    return one
  })
  clock.stall(10_000)
  await clock.advance(100)
  for (const { firedAt } of items) expect(firedAt).toHaveLength(1)
})
