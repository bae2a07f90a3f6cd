import fc from 'fast-check'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { brokenRules } from './session-rules/breakages.ts'
import { Plane } from './session-rules/plane.ts'
import { choiceMax } from './session-rules/scheduler.ts'
import { type Cast, openGround } from './session-rules/setting.ts'

// Registries, store and edges are the real ones. Every step at the store, every answer, every close and every socket's end
// happens when the schedule says so: a list of numbers that fast-check makes up and shortens. A failure prints its seed and
// path; handed to fc.assert beside numRuns, they show it again.

// A machine that has other things to do takes several times as long.
vi.setConfig({ testTimeout: 60_000 })

const ground = openGround()
afterAll(() => ground.database.close())

const schedules = fc.array(fc.nat(choiceMax), { maxLength: 80, size: 'max' })

const casts: Readonly<Record<string, Cast>> = {
  'two sessions on two edges, two attempts each': { edges: ['x', 'y'], attemptsMax: 2 },
  'two sessions on one edge, two attempts each': { edges: ['x', 'x'], attemptsMax: 2 },
  'three sessions on two edges, one attempt each': { edges: ['x', 'y', 'x'], attemptsMax: 1 },
  'three sessions on three edges, one attempt each': { edges: ['x', 'y', 'z'], attemptsMax: 1 },
}

describe('whatever the order, at most one session stays open, it is found, and the rows of the others go', () => {
  test.each(Object.entries(casts))('%s', async (_, cast) => {
    await fc.assert(
      fc.asyncProperty(schedules, async (choices) => {
        const plane = new Plane(ground, cast)
        const findings = await plane.run(choices)
        expect(findings, plane.scheduler.trace.join(' → ')).toEqual([])
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('it would be noticed if', () => {
  test.each(Object.entries(brokenRules))('%s', async (_, { breakage, cast, finding }) => {
    const noticed = await fc.check(
      fc.asyncProperty(schedules, async (choices) => {
        const findings = await new Plane(ground, cast, breakage).run(choices)
        return !findings.includes(finding)
      }),
      // Always the same schedules: whether a rule's absence is noticed must not be a matter of luck.
      { numRuns: 2_000, seed: 1, endOnFailure: true },
    )
    expect(noticed.failed).toBe(true)
  })
})
