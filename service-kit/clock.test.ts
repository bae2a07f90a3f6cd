import { afterEach, describe, expect, test, vi } from 'vitest'
import { shiftedClock, systemClock } from './clock.ts'
import { SteeredClock } from './testing/steered-clock.ts'

const day = 24 * 3_600_000

afterEach(() => {
  vi.useRealTimers()
})

describe('system clock', () => {
  test('a timer longer than Node can hold fires at its time, not at once', () => {
    vi.useFakeTimers()
    const ran = vi.fn()
    systemClock.after(60 * day, ran)
    vi.advanceTimersByTime(60 * day - 1)
    expect(ran).not.toHaveBeenCalled()
    vi.advanceTimersByTime(1)
    expect(ran).toHaveBeenCalledOnce()
  })

  test('a long timer can be cancelled in any of its stretches', () => {
    vi.useFakeTimers()
    const ran = vi.fn()
    const timer = systemClock.after(60 * day, ran)
    vi.advanceTimersByTime(30 * day)
    timer.cancel()
    expect(vi.getTimerCount()).toBe(0)
    vi.advanceTimersByTime(60 * day)
    expect(ran).not.toHaveBeenCalled()
  })

  test('a long period repeats, and stops when cancelled', () => {
    vi.useFakeTimers()
    const ran = vi.fn()
    const timer = systemClock.every(40 * day, ran)
    vi.advanceTimersByTime(80 * day)
    expect(ran).toHaveBeenCalledTimes(2)
    timer.cancel()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('a sleep that is given up rejects with the reason and leaves no timer', async () => {
    vi.useFakeTimers()
    const controller = new AbortController()
    const slept = systemClock.sleep(1000, controller.signal)
    controller.abort(new Error('no more need'))
    await expect(slept).rejects.toThrow('no more need')
    expect(vi.getTimerCount()).toBe(0)
  })

  test('microseconds are whole, stay within the wall clock millisecond, and never go back', () => {
    let previous = 0
    for (let index = 0; index < 20_000; index++) {
      const before = systemClock.now()
      const micros = systemClock.nowMicros()
      const after = systemClock.now()
      expect(Number.isInteger(micros)).toBe(true)
      if (micros < before * 1000 || micros > after * 1000 + 999 || micros < previous) {
        expect.fail(`${micros} µs after ${previous} µs, at ${before} to ${after} ms`)
      }
      previous = micros
    }
  })

  test('microseconds do not go back when the process stands still between the two clocks', () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    vi.setSystemTime(2_100_000_000_000)
    const startedAt = performance.now()
    const monotonic = vi.spyOn(performance, 'now').mockReturnValue(startedAt)
    systemClock.nowMicros()
    monotonic.mockReturnValue(startedAt + 0.5)
    const before = systemClock.nowMicros()
    expect(before % 1000).toBeGreaterThan(400)
    monotonic.mockReturnValue(startedAt + 5.5)
    expect(systemClock.nowMicros()).toBe(before)
    monotonic.mockRestore()
  })

  test('microseconds follow a wall clock that is set back', () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    vi.setSystemTime(2_000_000_000_000)
    systemClock.nowMicros()
    vi.setSystemTime(1_900_000_000_000)
    expect(systemClock.nowMicros()).toBe(1_900_000_000_000_000)
  })
})

test('a shifted clock differs in wall time only', () => {
  const base = new SteeredClock(1_000_000)
  const ahead = shiftedClock(base, 5_000)
  expect(ahead.now()).toBe(1_005_000)
  expect(ahead.nowMicros()).toBe(1_005_000_000)
  expect(ahead.monotonic()).toBe(base.monotonic())
})

describe('steered clock', () => {
  test('timers run in the order they fall due, each at its own time', async () => {
    const clock = new SteeredClock(0)
    const ran: string[] = []
    clock.after(20, () => ran.push(`b ${clock.monotonic()}`))
    clock.after(10, () => ran.push(`a ${clock.monotonic()}`))
    clock.every(15, () => ran.push(`tick ${clock.monotonic()}`))
    await clock.advance(30)
    expect(ran).toEqual(['a 10', 'tick 15', 'b 20', 'tick 30'])
    expect(clock.now()).toBe(30)
  })

  test('promises settle between timers, so that a chain of sleeps passes in one advance', async () => {
    const clock = new SteeredClock()
    let finishedAt = 0
    const chain = (async () => {
      for (let step = 0; step < 5; step++) await clock.sleep(10)
      finishedAt = clock.monotonic()
    })()
    await clock.advance(100)
    await chain
    expect(finishedAt).toBe(50)
  })

  test('timers left over can be counted', () => {
    const clock = new SteeredClock()
    const timer = clock.after(10, () => {})
    clock.every(10, () => {}).cancel()
    expect(clock.pendingTimers).toBe(1)
    timer.cancel()
    expect(clock.pendingTimers).toBe(0)
  })
})
