import './simulation/ports.ts'
import { expect, test } from 'vitest'
import { runSchedule } from './simulation/schedule.ts'
import { testSchedules } from './simulation/simulation-suite.ts'

testSchedules(1_000_001)

test('the same seed runs the same schedule', async () => {
  for (const seed of [3, 4, 5]) {
    const one = await runSchedule(seed, { traced: true })
    const again = await runSchedule(seed, { traced: true })
    expect(one.trace.length).toBeGreaterThan(100)
    expect(again.trace.findIndex((line, index) => line !== one.trace[index])).toBe(-1)
    expect(again.trace.length).toBe(one.trace.length)
  }
})

test('where nothing goes wrong, every message comes', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { violations, accepted, delivered } = await runSchedule(seed, { calm: true })
    expect(violations).toEqual([])
    expect(delivered).toBeGreaterThan(0)
    expect(delivered).toBeLessThanOrEqual(accepted)
  }
})
