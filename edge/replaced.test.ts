import { expect, test } from 'vitest'
import type { SessionRow } from '../gen/push/internal/v1/registry.ts'
import type { DeepPartial, ReportRequest } from '../gen/push/internal/v1/uplink.ts'
import { ReportResult } from '../gen/push/internal/v1/uplink.ts'
import { PushError } from '../service-kit/errors.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { seededRandom } from '../service-kit/random.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { createReplacedReports } from './replaced.ts'

const row = (sessionId: string): SessionRow => ({
  deviceId: 'd',
  epoch: 5,
  sessionId,
  edgeId: 'edge-b',
  edgeAddress: 'b:1',
  accountId: '',
  protocol: 'push.v1.json',
  connectedTime: 0,
})

function setup(answer: (sessionId: string) => ReportResult, activeMax?: number) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const calls: DeepPartial<ReportRequest>[] = []
  const reports = createReplacedReports({
    uplink: {
      async report(request) {
        calls.push(request)
        return {
          results: (request.items ?? []).map(({ item }) =>
            answer(item?.$case === 'sessionReplaced' ? (item.value?.sessionId ?? '') : ''),
          ),
        }
      },
    },
    edgeId: 'edge-a',
    clock,
    random: seededRandom(1),
    log: silentLog,
    metrics: createEdgeMetrics(metrics),
    ...(activeMax !== undefined && { activeMax }),
  })
  const ended = (result: string) => metricValue(metrics, 'push_edge_replaced_reports_total', { result })
  return { clock, calls, reports, ended }
}

const replacer = { epoch: 9, sessionId: 'new' }

test('replaced sessions are reported together, with who has replaced them', async () => {
  const { clock, calls, reports, ended } = setup(() => ReportResult.DONE)
  reports.report(row('a'), replacer)
  reports.report(row('b'), replacer)
  await clock.advance(0)
  expect(calls).toMatchObject([{ edgeId: 'edge-a', items: [{}, {}] }])
  expect(calls[0]?.items?.[0]?.item?.value).toEqual({
    deviceId: 'd',
    sessionId: 'a',
    edgeId: 'edge-b',
    edgeAddress: 'b:1',
    replacerSessionId: 'new',
    replacerEpoch: 9,
  })
  expect(await ended('done')).toBe(2)
  expect(clock.pendingTimers).toBe(0)
})

test('each is repeated until a router says done, whether the router refused, failed or was away', async () => {
  let attempts = 0
  const { clock, calls, reports, ended } = setup((sessionId) => {
    if (sessionId === 'easy' || ++attempts > 3) return ReportResult.DONE
    if (attempts === 2) throw new PushError('DRAINING', 'away')
    return ReportResult.RETRY
  })
  reports.report(row('easy'), replacer)
  reports.report(row('hard'), replacer)
  await clock.advance(30_000)
  expect(await ended('done')).toBe(2)
  expect(calls.map(({ items }) => items?.length)).toEqual([2, 1, 1, 1])
})

test('after 60 s it is given up and counted', async () => {
  const { clock, calls, reports, ended } = setup(() => ReportResult.RETRY)
  reports.report(row('a'), replacer)
  await clock.advance(50_000)
  expect(reports.size).toBe(1)
  await clock.advance(10_000)
  expect(reports.size).toBe(0)
  expect(await ended('given_up')).toBe(1)
  expect(calls.length).toBeGreaterThan(10)
  expect(clock.pendingTimers).toBe(0)
})

test('NOT_IMPLEMENTED is not repeated', async () => {
  const { clock, calls, reports, ended } = setup(() => ReportResult.NOT_IMPLEMENTED)
  reports.report(row('a'), replacer)
  await clock.advance(60_000)
  expect(calls).toHaveLength(1)
  expect(await ended('not_implemented')).toBe(1)
})

test('one more than the bound is given up at once', async () => {
  const { reports, ended, clock } = setup(() => ReportResult.RETRY, 1)
  reports.report(row('a'), replacer)
  reports.report(row('b'), replacer)
  expect(reports.size).toBe(1)
  expect(await ended('given_up')).toBe(1)
  const closed = reports.close(1_000)
  await clock.advance(1_000)
  await closed
  expect(await ended('given_up')).toBe(2)
  expect(clock.pendingTimers).toBe(0)
})
