import { beforeEach, expect, test } from 'vitest'
import { createMetrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { clockCheckPeriodMs, clockRetryMs, clockSkewMaxMs, readinessPeriodMs, watchReadiness } from './readiness.ts'

let clock: SteeredClock
let skewMs: number
let answerMs: number
let storeAway: boolean
let answers: boolean
let reports: boolean[]
let asked: number
beforeEach(() => {
  clock = new SteeredClock()
  skewMs = 0
  answerMs = 0
  storeAway = false
  answers = true
  reports = []
  asked = 0
})

async function watch() {
  const metrics = createMetrics()
  const log = recordingLog()
  const readiness = await watchReadiness({
    async storeClockMicros() {
      asked += 1
      if (storeAway) throw new Error('away')
      const storeMicros = clock.nowMicros() + skewMs * 1000
      if (answerMs > 0) await clock.sleep(answerMs)
      return storeMicros
    },
    storeAnswers: () => answers,
    report: (ready) => void reports.push(ready),
    clock,
    log,
    metrics,
  })
  return { readiness, metrics, log }
}

test('ready when the store answers and the clocks agree', async () => {
  const { readiness, metrics } = await watch()
  expect(reports).toEqual([true])
  expect(readiness.ready).toBe(true)
  expect(await metricValue(metrics, 'push_registry_ready')).toBe(1)
  await readiness.close()
  expect(clock.pendingTimers).toBe(0)
})

test('not ready while the store does not answer, and ready again', async () => {
  const { readiness } = await watch()
  answers = false
  await clock.advance(readinessPeriodMs)
  answers = true
  await clock.advance(readinessPeriodMs)
  expect(reports).toEqual([true, false, true])
  await readiness.close()
})

for (const sign of [1, -1]) {
  test(`a clock ${sign * 10} s from the store's is the limit`, async () => {
    skewMs = sign * clockSkewMaxMs
    const { readiness, metrics, log } = await watch()
    expect(reports).toEqual([true])
    expect(await metricValue(metrics, 'push_registry_clock_skew_seconds')).toBe(sign * 10)
    skewMs = sign * (clockSkewMaxMs + 1)
    await clock.advance(clockCheckPeriodMs + readinessPeriodMs)
    expect(reports).toEqual([true, false])
    expect(log.withPhrase('clock is too far from the store; not ready')).toHaveLength(1)
    skewMs = 0
    await clock.advance(clockCheckPeriodMs + readinessPeriodMs)
    expect(reports).toEqual([true, false, true])
    await readiness.close()
  })
}

test('the clocks are compared every minute', async () => {
  const { readiness } = await watch()
  await clock.advance(10 * clockCheckPeriodMs)
  expect(asked).toBeGreaterThanOrEqual(10)
  expect(asked).toBeLessThanOrEqual(11)
  await readiness.close()
})

test('a registry that never could compare the clocks is not ready, and tries again soon', async () => {
  storeAway = true
  const { readiness } = await watch()
  expect(reports).toEqual([false])
  storeAway = false
  await clock.advance(clockRetryMs + 2 * readinessPeriodMs)
  expect(reports).toEqual([false, true])
  await readiness.close()
})

test('a comparison that fails changes nothing of what the last one found', async () => {
  const { readiness } = await watch()
  storeAway = true
  await clock.advance(2 * clockCheckPeriodMs)
  expect(reports).toEqual([true])
  await readiness.close()
})

test('a slow answer is not taken for a wrong clock', async () => {
  const { readiness } = await watch()
  // It left the store 12 s ago: half of that could have been either way.
  answerMs = 12_000
  skewMs = 5_000
  await clock.advance(clockCheckPeriodMs + 13_000)
  expect(reports).toEqual([true])
  await readiness.close()
})
