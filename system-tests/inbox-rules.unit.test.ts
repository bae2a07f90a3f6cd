import fc from 'fast-check'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { brokenRules } from './inbox-rules/breakages.ts'
import { InboxPlane } from './inbox-rules/plane.ts'
import { type Cast, insertBeforeHint, openBeforeHint, openGround } from './inbox-rules/setting.ts'
import { choiceMax } from './session-rules/scheduler.ts'

// Dispatch, offline path, flushes, registry, stores and edges are the real ones. Every step at the store, every delivery, poke,
// answer and flush, and every socket's end happens when the schedule says so: a list of numbers that fast-check makes up and
// shortens. Time stands still: no time-out and no repetition may be what saves a message. A failure prints its seed and path;
// handed to fc.assert beside numRuns, they show it again.

// A machine that has other things to do takes several times as long.
vi.setConfig({ testTimeout: 60_000 })

const ground = openGround()
afterAll(() => ground.database.close())

const schedules = fc.array(fc.nat(choiceMax), { maxLength: 100, size: 'max' })

const casts: Readonly<Record<string, Cast>> = {
  'two sessions on two edges, two messages': { edges: ['x', 'y'], messages: 2 },
  'two sessions on one edge, two messages': { edges: ['x', 'x'], messages: 2 },
  'three sessions on two edges, one message': { edges: ['x', 'y', 'x'], messages: 1 },
  'a session that registers while a hint is on its way': { edges: ['x', 'y'], messages: 2, prologue: insertBeforeHint },
  'sessions that come while a hint is on its way': { edges: ['x', 'y', 'x'], messages: 2, prologue: openBeforeHint },
}

describe('whatever the order, no message is lost or stuck, and none waits beside an open session', () => {
  test.each(Object.entries(casts))('%s', async (_, cast) => {
    await fc.assert(
      fc.asyncProperty(schedules, async (choices) => {
        const plane = new InboxPlane(ground, cast)
        const findings = await plane.run(choices)
        expect(findings, plane.scheduler.trace.join(' → ')).toEqual([])
      }),
      { numRuns: 200 },
    )
  })
})

describe('it would be noticed if', () => {
  test.each(Object.entries(brokenRules))('%s', async (_, { breakage, cast, finding }) => {
    let noticed = false
    await fc.check(
      fc.asyncProperty(schedules, async (choices) => {
        const findings = await new InboxPlane(ground, cast, breakage).run(choices)
        noticed ||= findings.includes(finding)
        return !noticed
      }),
      // Always the same schedules: whether a rule's absence is noticed must not be a matter of luck.
      { numRuns: 2_000, seed: 1, endOnFailure: true },
    )
    expect(noticed).toBe(true)
    // And there, where it would be, nothing is.
    await fc.assert(
      fc.asyncProperty(schedules, async (choices) => {
        const plane = new InboxPlane(ground, cast)
        const findings = await plane.run(choices)
        expect(findings, plane.scheduler.trace.join(' → ')).toEqual([])
      }),
      { numRuns: 300, seed: 1 },
    )
  })
})
