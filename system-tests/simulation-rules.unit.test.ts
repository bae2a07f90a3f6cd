import './simulation/ports.ts'
import './simulation/rule-switches.ts'
import { expect, test, vi } from 'vitest'
import { brokenRules, type RuleName } from './simulation/broken-rules.ts'
import { runSchedule } from './simulation/schedule.ts'

// That the simulation finds nothing would mean nothing if it could find nothing. So each rule is broken alone, and has to be missed.

// A machine that has other things to do takes many times as long.
vi.setConfig({ testTimeout: 900_000 })

/** Always the same schedules: whether a rule's absence is noticed must not be a matter of luck. */
const seedMax = 400

test.each(Object.keys(brokenRules) as RuleName[])('it is noticed when a rule is broken: %s', async (rule) => {
  let noticed: number | undefined
  for (let seed = 1; seed <= seedMax && noticed === undefined; seed++) {
    const { violations } = await runSchedule(seed, { brokenRule: rule })
    if (violations.length > 0) noticed = seed
  }
  if (noticed === undefined) throw new Error(`none of ${seedMax} schedules shows that the rule is broken`)
  // The same schedule while the rule holds: it is the rule that is missed, and nothing else.
  expect((await runSchedule(noticed, { faultsOf: rule })).violations, `seed ${noticed}`).toEqual([])
})
