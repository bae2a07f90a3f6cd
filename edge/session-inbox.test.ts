import { expect, test } from 'vitest'
import { InboxReadyResult } from '../gen/push/internal/v1/edge.ts'
import { FlushResult, FlushStop } from '../gen/push/internal/v1/uplink.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { closeKinds } from './close-codes.ts'
import { beltMaxMs } from './flush.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { flushResponse } from './testing/fake-plane.ts'
import { FakeSink, fakeEdge } from './testing/fake-session.ts'

const { ACCEPTED, NOT_CONNECTED } = InboxReadyResult
const { READING, EMPTY, WAITING, STOPPED } = FlushResult

const ack = (...ids: string[]) => JSON.stringify({ type: 'ack', ids })
const registered = { type: 'registered', epoch: 1, attempts: 1, replaced: [] } as const

test('a session that opens with the hint flushes, one without does not', () => {
  const { install, flushers } = fakeEdge()
  install().session.handle(registered)
  expect(flushers).toEqual([])
  const { session, transport } = install()
  session.handle({ ...registered, inboxUntil: 7 })
  expect(flushers).toMatchObject([{ deviceId: 'tv-1', sessionId: session.sessionId }])
  expect(flushers[0]?.called()).toBe(true)
  expect(transport.frames.map(({ type }) => type)).toEqual(['welcome'])
})

test('a poke to a registering session flushes when it opens, and is answered when the inbox has been read', () => {
  const { install, flushers } = fakeEdge()
  const { session } = install()
  const sink = new FakeSink()
  session.poke({ pokeId: 1, sink })
  expect(flushers).toEqual([])
  session.handle(registered)
  expect(flushers).toHaveLength(1)
  flushers[0]?.called()
  expect(sink.pokes).toEqual([])
  flushers[0]?.heard(flushResponse(READING))
  expect(sink.pokes).toEqual([{ pokeId: 1, result: ACCEPTED }])
})

test('when the session ends its pokes are answered NOT_CONNECTED, also when it never opened', async () => {
  const { open, install, metrics } = fakeEdge()
  const sink = new FakeSink()
  const [opened, registering] = [open(), install()]
  opened.session.poke({ pokeId: 1, sink })
  registering.session.poke({ pokeId: 2, sink })
  opened.session.handle({ type: 'end', kind: closeKinds.noPong })
  registering.session.handle({ type: 'registration failed', attempts: 1 })
  expect(sink.pokes).toEqual([
    { pokeId: 1, result: NOT_CONNECTED },
    { pokeId: 2, result: NOT_CONNECTED },
  ])
  expect(await metricValue(metrics, 'push_edge_pokes_total', { result: 'not_connected' })).toBe(2)
})

test('a session that is being closed flushes no more; its pokes wait for its end', () => {
  const { open, flushers } = fakeEdge()
  const { session } = open()
  const sink = new FakeSink()
  session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
  session.poke({ pokeId: 1, sink })
  session.handle({ type: 'replaced', replacer: { epoch: 999, sessionId: 'new' } })
  expect(flushers[0]?.called()).toBe(false)
  session.poke({ pokeId: 2, sink })
  expect(sink.pokes).toEqual([])
  session.receive(ack('a'))
  expect(sink.pokes.map(({ result }) => result)).toEqual([NOT_CONNECTED, NOT_CONNECTED])
})

test('after SLOW_CONSUMER it flushes again when the outbox is low and a place is free, not before', () => {
  const { open, flushers } = fakeEdge({ outbox: { bytes: 100_000, count: 16 } })
  const { session, transport } = open()
  const sink = new FakeSink()
  session.poke({ pokeId: 1, sink })
  transport.writable = false
  for (let index = 0; index < 12; index++) session.deliver(deliveryOf({ id: `m${index}` }), { sink, deliveryId: index })
  flushers[0]?.called()
  flushers[0]?.heard(flushResponse(READING))
  flushers[0]?.heard(flushResponse(STOPPED, { stop: FlushStop.SLOW_CONSUMER }))
  session.writable()
  expect(flushers).toHaveLength(1)
  transport.writable = true
  session.writable()
  expect(flushers).toHaveLength(2)
})

test('a full list of unanswered messages is no room, an answer makes some', () => {
  const { open, flushers } = fakeEdge()
  const { session } = open()
  const sink = new FakeSink()
  session.poke({ pokeId: 1, sink })
  for (let index = 0; index < 48; index++) session.deliver(deliveryOf({ id: `m${index}` }), { sink, deliveryId: index })
  flushers[0]?.called()
  flushers[0]?.heard(flushResponse(STOPPED, { stop: FlushStop.SLOW_CONSUMER }))
  session.writable()
  expect(flushers).toHaveLength(1)
  session.receive(ack('m1'))
  expect(flushers).toHaveLength(2)
})

test('a failed flush is repeated by the session’s own deadlines, and not after its end', async () => {
  const { open, flushers, clock } = fakeEdge()
  const { session } = open()
  session.mail()
  flushers[0]?.called()
  flushers[0]?.failed()
  await clock.advance(900)
  expect(flushers).toHaveLength(1)
  await clock.advance(1_300)
  expect(flushers).toHaveLength(2)
  flushers[1]?.called()
  flushers[1]?.failed()
  session.socketClosed()
  session.heard()
  await clock.advance(60_000)
  expect(flushers).toHaveLength(2)
})

test('after WAITING an answer of the device flushes again', () => {
  const { open, flushers } = fakeEdge()
  const { session } = open()
  session.mail()
  session.deliver(deliveryOf({ id: 'a' }), { sink: new FakeSink(), deliveryId: 1 })
  flushers[0]?.called()
  flushers[0]?.heard(flushResponse(WAITING))
  session.receive(ack('nobody'))
  expect(flushers).toHaveLength(1)
  session.receive(ack('a'))
  expect(flushers).toHaveLength(2)
})

test('what the belt finds is counted', async () => {
  const { open, flushers, clock, metrics } = fakeEdge({ pingIntervalMs: 10 * 3_600_000 })
  open().session.mail()
  flushers[0]?.called()
  flushers[0]?.heard(flushResponse(EMPTY, { settledCount: 9 }))
  expect(await metricValue(metrics, 'push_edge_belt_flush_found_total')).toBe(0)
  await clock.advance(beltMaxMs + 200)
  expect(flushers).toHaveLength(2)
  flushers[1]?.called()
  flushers[1]?.heard(flushResponse(EMPTY, { settledCount: 2 }))
  expect(await metricValue(metrics, 'push_edge_belt_flush_found_total')).toBe(2)
  expect(await metricValue(metrics, 'push_edge_flushes_total', { result: 'empty' })).toBe(2)
})
