import process from 'node:process'
import { expect, test } from 'vitest'
import { runSchedule } from './schedule.ts'

/** One schedule alone, its trace printed. */
const seedVariable = 'PUSHPLANE_SIMULATION_SEED'
/** How many schedules each file runs; 500 by default. */
const countVariable = 'PUSHPLANE_SIMULATION_COUNT'
const countDefault = 500
const shownMax = 10
const testTimeoutMs = 30 * 60_000

/** Runs schedules from `firstSeed` on and fails with the seeds of those in which a promise was broken. */
export function testSchedules(firstSeed: number): void {
  const only = process.env[seedVariable]
  const count = Number(process.env[countVariable] ?? countDefault)

  test.skipIf(only === undefined)(`the schedule of seed ${only} keeps all promises`, async () => {
    const end = await runSchedule(Number(only), { traced: true })
    process.stderr.write(`${end.trace.join('\n')}\n`)
    expect(end.violations).toEqual([])
  })

  test.skipIf(only !== undefined)(
    `${count} schedules from seed ${firstSeed} keep all promises`,
    async () => {
      const failed: string[] = []
      const faults = new Set<string>()
      let delivered = 0
      for (let seed = firstSeed; seed < firstSeed + count; seed++) {
        const end = await runSchedule(seed)
        delivered += end.delivered
        for (const name of end.faults) faults.add(name)
        if (end.violations.length > 0) failed.push(`seed ${seed} (${end.faults.join(', ')}): ${end.violations.join('; ')}`)
      }
      if (failed.length > 0) {
        const first = /^seed (\d+)/.exec(failed[0] ?? '')?.[1]
        throw new Error(
          `${failed.length} of ${count} schedules broke a promise; ${seedVariable}=${first} replays the first with its trace\n${failed.slice(0, shownMax).join('\n')}`,
        )
      }
      // Enough happened for the promises to be put to the test.
      expect(delivered).toBeGreaterThan(count)
      expect(faults.size).toBeGreaterThan(5)
    },
    testTimeoutMs,
  )
}
