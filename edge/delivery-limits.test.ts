import { describe, expect, test } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { FlushResult, FlushStop } from '../gen/push/internal/v1/uplink.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { closeKinds } from './close-codes.ts'
import type { SessionSettings } from './session-host.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { flushResponse } from './testing/fake-plane.ts'
import { FakeSink, fakeEdge } from './testing/fake-session.ts'

const { WRITTEN, ACKNOWLEDGED, RATE_LIMITED, SLOW_CONSUMER, EXPIRED, REPLACED } = OutcomeKind

/** An open session, and what its deliveries come to. */
function session(settings: Partial<SessionSettings> = {}) {
  const edge = fakeEdge({ pingIntervalMs: 3_600_000, ...settings })
  const opened = edge.open()
  const sink = new FakeSink()
  let deliveryId = 0
  /** Delivers, and acknowledges at once what is written. Returns the outcomes so far. */
  const deliver = (frame: Parameters<typeof deliveryOf>[0] = {}, more: Parameters<typeof deliveryOf>[1] = {}) => {
    const delivery = deliveryOf(frame, more)
    opened.session.deliver(delivery, { sink, deliveryId: ++deliveryId })
    if (sink.kinds(deliveryId).includes(WRITTEN)) opened.session.receive(`{"type":"ack","ids":["${delivery.messageId}"]}`)
    return sink.kinds(deliveryId)
  }
  return { ...edge, ...opened, sink, deliver }
}

const answered = [WRITTEN, ACKNOWLEDGED]

describe('the rate of one device', () => {
  const deliveryRate = { perSecond: 10, burst: 20 }

  test('a burst passes, what is beyond it is RATE_LIMITED and nothing of it is kept; time brings new places', async () => {
    const { deliver, clock, transport } = session({ deliveryRate })
    for (let index = 0; index < 20; index++) expect(deliver()).toEqual(answered)
    expect(deliver({ id: 'beyond' })).toEqual([RATE_LIMITED])
    expect(transport.ofType('message')).toHaveLength(20)
    await clock.advance(100)
    expect(deliver({ id: 'beyond' })).toEqual(answered)
    expect(deliver()).toEqual([RATE_LIMITED])
  })

  test.each([{ priority: 'HIGH' }, { class: 'RECOVERY' }] as const)('%j passes in any case, and counts', async (frame) => {
    const { deliver, metrics } = session({ deliveryRate })
    for (let index = 0; index < 15; index++) expect(deliver(frame)).toEqual(answered)
    for (let index = 0; index < 5; index++) expect(deliver()).toEqual(answered)
    expect(deliver()).toEqual([RATE_LIMITED])
    expect(deliver(frame)).toEqual(answered)
    expect(await metricValue(metrics, 'push_edge_rate_exempt_total')).toBe(1)
    expect(await metricValue(metrics, 'push_edge_outcomes_total', { kind: 'rate_limited' })).toBe(1)
  })

  test('a repeat of what is here joins, and costs nothing', () => {
    const { session: one, sink } = session({ deliveryRate })
    for (let index = 1; index <= 50; index++) one.deliver(deliveryOf({ id: 'same' }), { sink, deliveryId: index })
    expect(sink.outcomes.map(({ kind }) => kind)).not.toContain(RATE_LIMITED)
  })

  test('each device has its own', () => {
    const { deliver, open } = session({ deliveryRate })
    for (let index = 0; index < 20; index++) deliver()
    const { session: other } = open({ deviceId: 'tv-2' })
    const sink = new FakeSink()
    other.deliver(deliveryOf({}), { sink, deliveryId: 1 })
    expect(sink.kinds(1)).toEqual([WRITTEN])
  })

  test('a flush that it has stopped is repeated when a second of it is there again', async () => {
    const { deliver, clock, flushers, session: one } = session({ deliveryRate })
    for (let index = 0; index < 20; index++) deliver()
    one.mail()
    const [flusher] = flushers
    flusher?.called()
    flusher?.heard(flushResponse(FlushResult.READING))
    flusher?.heard(flushResponse(FlushResult.STOPPED, { stop: FlushStop.RATE_LIMITED }))
    await clock.advance(900)
    expect(flushers).toHaveLength(1)
    await clock.advance(200)
    expect(flushers).toHaveLength(2)
    for (let index = 0; index < 10; index++) expect(deliver()).toEqual(answered)
  })
})

describe('what waits for a device that does not read', () => {
  test('is given back as SLOW_CONSUMER when it has waited too long, as EXPIRED when its time was shorter', async () => {
    const { deliver, clock, transport, metrics, host } = session({ outboxAgeMs: 10_000 })
    transport.writable = false
    deliver({ id: 'old' })
    deliver({ id: 'short' }, { remainingTime: 5_000_000 })
    await clock.advance(5_000)
    deliver({ id: 'younger' })
    await clock.advance(6_500)
    expect(host.outboxBudget.usedBytes).toBeGreaterThan(0)
    expect(await metricValue(metrics, 'push_edge_outbox_aged_total')).toBe(1)
    expect(await metricValue(metrics, 'push_edge_outcomes_total', { kind: 'expired' })).toBe(1)
    await clock.advance(5_000)
    expect(host.outboxBudget.usedBytes).toBe(0)
  })

  test('after that nothing more is taken for it, no flush is asked for, and it is closed with 4003', async () => {
    const { deliver, clock, transport, session: one, flushers } = session({ outboxAgeMs: 10_000, stuckMs: 60_000 })
    transport.writable = false
    deliver()
    await clock.advance(12_000)
    expect(deliver()).toEqual([SLOW_CONSUMER])
    expect(one.hasRoom).toBe(false)
    one.mail()
    flushers[0]?.called()
    flushers[0]?.heard(flushResponse(FlushResult.STOPPED, { stop: FlushStop.SLOW_CONSUMER }))
    await clock.advance(40_000)
    expect(flushers).toHaveLength(1)
    expect(transport.closedWith).toBeUndefined()
    await clock.advance(10_000)
    expect(transport.closedWith).toBe(closeKinds.slowConsumer)
  })

  test('once it reads again it is served, and its inbox is flushed', async () => {
    const { deliver, clock, transport, session: one, flushers } = session({ outboxAgeMs: 10_000 })
    transport.writable = false
    deliver()
    one.mail()
    flushers[0]?.called()
    flushers[0]?.heard(flushResponse(FlushResult.STOPPED, { stop: FlushStop.SLOW_CONSUMER }))
    await clock.advance(12_000)
    transport.writable = true
    one.writable()
    expect(flushers).toHaveLength(2)
    expect(deliver()).toEqual(answered)
    await clock.advance(60_000)
    expect(transport.closedWith).toBeUndefined()
  })

  test('the newer version takes the place of the older one, which is REPLACED, and waits as long as any other', async () => {
    const { deliver, clock, transport, sink, session: one } = session({ outboxAgeMs: 10_000 })
    transport.writable = false
    deliver({ id: 'v1', collapse_key: 'k' })
    await clock.advance(6_000)
    deliver({ id: 'v2', collapse_key: 'k' })
    expect(sink.kinds(1)).toEqual([REPLACED])
    await clock.advance(6_000)
    expect(sink.kinds(2)).toEqual([])
    transport.writable = true
    one.writable()
    expect(transport.ofType('message')).toMatchObject([{ id: 'v2' }])
  })
})

test('what a device leaves unanswered is bounded, and what waits behind it is given back in time', async () => {
  const { session: one, clock, transport, sink } = session({ outboxAgeMs: 10_000 })
  for (let deliveryId = 1; deliveryId <= 50; deliveryId++) one.deliver(deliveryOf({}), { sink, deliveryId })
  expect(transport.ofType('message')).toHaveLength(48)
  await clock.advance(11_500)
  expect(sink.kinds(50)).toEqual([SLOW_CONSUMER])
  // The places kept for HIGH and RECOVERY are still free.
  one.deliver(deliveryOf({ class: 'RECOVERY' }), { sink, deliveryId: 51 })
  expect(sink.kinds(51)).toEqual([WRITTEN])
  expect(sink.outcomes.map(({ kind }) => kind)).not.toContain(EXPIRED)
})
