import { expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import { boundedIdentity } from './bounded.ts'
import type { Identity } from './identity.ts'

/** What becomes of what an identity answers, which may be anything: a module has no types at run time. */
function bounded(answer: () => unknown) {
  const clock = new SteeredClock()
  const log = recordingLog()
  const metrics = createMetrics()
  const inner = { authenticate: async () => answer() } as unknown as Identity
  const identity = boundedIdentity(inner, { timeoutMs: 5_000, clock, log, metrics: createEdgeMetrics(metrics) })
  return {
    clock,
    log,
    judge: () => identity.authenticate({ text: 'topsecret', from: 'header' }),
    counted: (verdict: string) => metricValue(metrics, 'push_edge_identity_verdicts_total', { verdict }),
  }
}

const unavailable = { ok: false, verdict: 'unavailable', detail: 'credentials cannot be judged now' }

test('a verdict passes as it is, without what does not belong to it', async () => {
  const { judge, counted, clock } = bounded(() => ({ ok: true, deviceId: 'tv-1', accountId: undefined, expiresAtMs: 7, more: 1 }))
  expect(await judge()).toEqual({ ok: true, deviceId: 'tv-1', accountId: undefined, expiresAtMs: 7 })
  expect(await counted('believed')).toBe(1)
  expect(clock.pendingTimers).toBe(0)
})

test('an expired or invalid one has words that fit a line', async () => {
  const { judge, counted } = bounded(() => ({ ok: false, verdict: 'expired', detail: `no\r\nX: ${'y'.repeat(500)}` }))
  const verdict = await judge()
  expect(verdict).toMatchObject({ ok: false, verdict: 'expired', detail: expect.stringMatching(/^no {2}X: y{190,200}$/) })
  expect(await counted('expired')).toBe(1)
})

test('an identity that takes too long has no verdict', async () => {
  const { judge, counted, clock, log } = bounded(() => new Promise(() => {}))
  const verdict = judge()
  await clock.advance(5_000)
  expect(await verdict).toEqual(unavailable)
  expect(await counted('late')).toBe(1)
  expect(log.entries).toHaveLength(1)
})

test('one that fails is told of once a minute, and counted each time', async () => {
  const { judge, counted, clock, log } = bounded(() => {
    throw new Error('broken')
  })
  expect(await judge()).toEqual(unavailable)
  expect(await judge()).toEqual(unavailable)
  expect(log.withPhrase('credentials of devices cannot be judged')).toHaveLength(1)
  await clock.advance(60_000)
  await judge()
  expect(log.entries).toHaveLength(2)
  expect(await counted('failed')).toBe(3)
  expect(JSON.stringify(log.entries)).not.toContain('topsecret')
})

test.each([
  ['nothing', undefined],
  ['true', true],
  ['no device', { ok: true }],
  ['a device that is no id', { ok: true, deviceId: 'a/b' }],
  ['an account that is no id', { ok: true, deviceId: 'a', accountId: '' }],
  ['an account that is null', { ok: true, deviceId: 'a', accountId: null }],
  ['an end that is no time', { ok: true, deviceId: 'a', expiresAtMs: 'soon' }],
  ['an end that is no number', { ok: true, deviceId: 'a', expiresAtMs: Number.NaN }],
  ['a word for yes', { ok: 'yes', deviceId: 'a' }],
  ['another verdict', { ok: false, verdict: 'maybe', detail: '' }],
  ['trouble', { ok: false, verdict: 'unavailable', detail: 'of an inner kind' }],
])('%s is no verdict about the credential', async (_what, given) => {
  expect(await bounded(() => given).judge()).toEqual(unavailable)
})
