import { expect, test } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import type { LateAnswer, ReportItem, ReportResponse } from '../gen/push/internal/v1/uplink.ts'
import { ReportResult } from '../gen/push/internal/v1/uplink.ts'
import { PushError } from '../service-kit/errors.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { seededRandom } from '../service-kit/random.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { createLateAnswers, lateAnswersPerDeviceMax } from './late-answers.ts'

const late = (messageId: string, more: Partial<LateAnswer> = {}): LateAnswer => ({
  deviceId: 'tv-1',
  messageId,
  kind: OutcomeKind.ACKNOWLEDGED,
  answeredTime: 5,
  detail: '',
  result: undefined,
  ...more,
})

function setup(limits: { queuedMax?: number; bytesMax?: number } = {}) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const log = recordingLog()
  const batches: string[][] = []
  const state = { answer: (_messageId: string): ReportResult => ReportResult.DONE, away: false }
  const lateAnswers = createLateAnswers({
    uplink: {
      async report({ items = [] }): Promise<ReportResponse> {
        // What goes in is whole.
        const whole = items as ReportItem[]
        const ids = whole.map(({ item }) => (item?.$case === 'lateAnswer' ? item.value.messageId : '?'))
        batches.push(ids)
        if (state.away) throw new PushError('REGISTRY_UNAVAILABLE', 'away')
        return { results: ids.map(state.answer) }
      },
    },
    edgeId: 'edge-1',
    bytesMax: limits.bytesMax ?? 1e9,
    clock,
    random: seededRandom(1),
    log,
    metrics: createEdgeMetrics(metrics),
    ...(limits.queuedMax !== undefined && { queuedMax: limits.queuedMax }),
  })
  const count = (result: string) => metricValue(metrics, 'push_edge_late_answers_total', { result })
  return { clock, metrics, log, batches, state, lateAnswers, count }
}

test('answers that come together go up together, at most 256 at once, and the same one twice is one', async () => {
  const { clock, lateAnswers, batches, count } = setup()
  for (let index = 0; index < 300; index++) lateAnswers.add(late(`m${index}`))
  lateAnswers.add(late('m5'))
  await clock.advance(0)
  expect(batches.map((batch) => batch.length)).toEqual([256, 44])
  expect(await count('done')).toBe(300)
  expect(lateAnswers.size).toBe(0)
})

test('an acknowledgement and the result after it are two', async () => {
  const { clock, lateAnswers, batches } = setup()
  lateAnswers.add(late('m'))
  lateAnswers.add(late('m', { kind: OutcomeKind.RESULT, result: { ok: true, data: Buffer.from('1'), message: '' } }))
  await clock.advance(0)
  expect(batches).toEqual([['m', 'm']])
})

test('results are bounded in bytes a call', async () => {
  const { clock, lateAnswers, batches } = setup()
  const result = { ok: true, data: Buffer.alloc(48 * 1024), message: '' }
  for (let index = 0; index < 40; index++) lateAnswers.add(late(`m${index}`, { result }))
  await clock.advance(0)
  expect(batches.map((batch) => batch.length)).toEqual([21, 19])
})

test('are repeated until a router has taken them, with growing waits', async () => {
  const { clock, lateAnswers, batches, state, log, count } = setup()
  state.away = true
  lateAnswers.add(late('m'))
  await clock.advance(60_000)
  expect(batches.length).toBeGreaterThan(5)
  expect(batches.length).toBeLessThan(40)
  expect(lateAnswers.size).toBe(1)
  expect(log.withPhrase('late answers cannot be reported; trying again')).toHaveLength(1)
  state.away = false
  await clock.advance(11_000)
  expect(lateAnswers.size).toBe(0)
  expect(await count('done')).toBe(1)
  expect(log.withPhrase('late answers are reported again')).toHaveLength(1)
})

test('RETRY repeats that one only, NOT_IMPLEMENTED none', async () => {
  const { clock, lateAnswers, batches, state, count } = setup()
  state.answer = (id) => (id === 'again' ? ReportResult.RETRY : id === 'old' ? ReportResult.NOT_IMPLEMENTED : ReportResult.DONE)
  for (const id of ['done', 'again', 'old']) lateAnswers.add(late(id))
  await clock.advance(0)
  state.answer = () => ReportResult.DONE
  await clock.advance(1_000)
  expect(batches).toEqual([['done', 'again', 'old'], ['again']])
  expect(await count('not_implemented')).toBe(1)
})

test('above a bound the oldest is lost, and counted', async () => {
  for (const limits of [{ queuedMax: 2 }, { bytesMax: 300 }]) {
    const { clock, lateAnswers, batches, count } = setup(limits)
    for (const id of ['a', 'b', 'c']) lateAnswers.add(late(id))
    await clock.advance(0)
    expect(batches).toEqual([['b', 'c']])
    expect(await count('queue_full')).toBe(1)
  }
})

test('one device does not crowd out the others', async () => {
  const { clock, lateAnswers, batches } = setup()
  lateAnswers.add(late('other', { deviceId: 'tv-2' }))
  for (let index = 0; index <= lateAnswersPerDeviceMax; index++) lateAnswers.add(late(`m${index}`))
  await clock.advance(0)
  const sent = batches.flat()
  expect(sent).toHaveLength(lateAnswersPerDeviceMax + 1)
  expect(sent).toContain('other')
  expect(sent).not.toContain('m0')
})

test('stopping waits for what is left, and gives it up after its grace', async () => {
  const { clock, lateAnswers, state, count } = setup()
  state.away = true
  lateAnswers.add(late('m'))
  let closed = false
  const closing = lateAnswers.close(5_000).then(() => {
    closed = true
  })
  await clock.advance(4_900)
  expect(closed).toBe(false)
  await clock.advance(200)
  await closing
  expect(await count('shutdown')).toBe(1)
  expect(clock.pendingTimers).toBe(0)
})
