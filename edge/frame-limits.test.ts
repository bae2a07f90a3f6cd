import { describe, expect, test } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { closeKinds } from './close-codes.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { test as edgeTest } from './testing/edge-fixture.ts'
import { FakeSink, fakeEdge } from './testing/fake-session.ts'
import { handshakeText, rawClient } from './testing/raw-client.ts'
import { wireFrame } from './testing/wire-frames.ts'

const rules = { ratePerSecond: 10, burst: 100 }
const ping = '{"type":"ping"}'
const ends = (edge: ReturnType<typeof fakeEdge>, limit: string) =>
  metricValue(edge.metrics, 'push_edge_frame_limit_ends_total', { limit })

test('a burst and a rate are allowed; one frame more is answered by error, then 4502', async () => {
  const edge = fakeEdge({ deviceFrames: rules })
  const { session, transport } = edge.open()
  for (let index = 0; index < 100; index++) session.receive(ping)
  await edge.clock.advance(1_000)
  for (let index = 0; index < 10; index++) session.receive(ping)
  expect(transport.ofType('pong')).toHaveLength(110)
  expect(transport.closedWith).toBeUndefined()
  session.receive(ping)
  expect(transport.ofType('error')).toMatchObject([{ reason: 'RATE_EXCEEDED' }])
  expect(transport.closedWith).toBe(closeKinds.protocolViolation)
  expect(await ends(edge, 'rate')).toBe(1)
  // What is still on its way is not looked at.
  for (let index = 0; index < 1_000; index++) session.receive('nonsense')
  expect(transport.frames.filter(({ type }) => type !== 'pong')).toHaveLength(2)
  expect(await ends(edge, 'rate')).toBe(1)
})

test('large frames count by their size, long acks by their ids', () => {
  const edge = fakeEdge({ deviceFrames: { ratePerSecond: 1, burst: 32 } })
  const large = edge.open({ deviceId: 'tv-2' })
  const result = JSON.stringify({ type: 'result', id: 'x', status: 'ok', data: 'y'.repeat(40_000) })
  for (let index = 0; index < 3; index++) large.session.receive(result)
  // 10 of 32 each.
  expect(large.transport.closedWith).toBeUndefined()
  large.session.receive(result)
  expect(large.transport.closedWith).toBe(closeKinds.protocolViolation)

  const many = edge.open({ deviceId: 'tv-3' })
  const ack = (of: string) => JSON.stringify({ type: 'ack', ids: Array.from({ length: 100 }, (_, index) => `${of}-${index}`) })
  for (const of of ['first', 'second']) many.session.receive(ack(of))
  expect(many.transport.closedWith).toBeUndefined()
  many.session.receive(ack('third'))
  expect(many.transport.closedWith).toBe(closeKinds.protocolViolation)
  expect(edge.lateAnswers.filter(({ messageId }) => messageId.startsWith('second'))).toHaveLength(100)
  expect(edge.lateAnswers.filter(({ messageId }) => messageId.startsWith('third'))).toEqual([])
})

describe('answers to what the device was sent', () => {
  const result = (id: string) => JSON.stringify({ type: 'result', id, status: 'ok', data: 'y'.repeat(44 * 1024) })
  const ack = (...ids: string[]) => JSON.stringify({ type: 'ack', ids })
  /** A session that was sent these, on a limit that they exceed by far. */
  const opened = (count: number) => {
    const edge = fakeEdge({ deviceFrames: { ratePerSecond: 1, burst: 32 } })
    const device = edge.open()
    const sink = new FakeSink()
    const send = (confirm: 'ACKNOWLEDGED' | 'RESULT') => {
      const delivery = deliveryOf({ confirm })
      device.session.deliver(delivery, { sink, deliveryId: delivery.deliveryId })
      return delivery
    }
    return { edge, ...device, sink, send, sent: Array.from({ length: count }, () => send('RESULT')) }
  }

  test('count for nothing, however many and large', () => {
    const { session, transport, sink, send } = opened(0)
    for (let index = 0; index < 100; index++) {
      const { messageId, deliveryId } = send('RESULT')
      session.receive(ack(messageId))
      session.receive(result(messageId))
      expect(sink.kinds(deliveryId)).toEqual([OutcomeKind.WRITTEN, OutcomeKind.ACKNOWLEDGED, OutcomeKind.RESULT])
      session.receive(JSON.stringify({ type: 'nack', id: send('ACKNOWLEDGED').messageId, reason: 'no' }))
    }
    const many = Array.from({ length: 40 }, () => send('ACKNOWLEDGED').messageId)
    session.receive(ack(...many))
    // All that the limit allows is still there.
    for (let index = 0; index < 32; index++) session.receive(ping)
    expect(transport.closedWith).toBeUndefined()
    session.receive(ping)
    expect(transport.closedWith).toBe(closeKinds.protocolViolation)
  })

  test('also on another connection than they came by', () => {
    const { edge, sent, sink } = opened(10)
    const newer = edge.open()
    for (const { messageId } of sent) newer.session.receive(result(messageId))
    expect(newer.transport.closedWith).toBeUndefined()
    expect(sent.flatMap(({ deliveryId }) => sink.kinds(deliveryId))).toHaveLength(20)
  })

  test('count when they are repeated, or say something of other messages besides', () => {
    const repeated = opened(1)
    const id = repeated.sent[0]?.messageId ?? ''
    for (let index = 0; index < 33; index++) repeated.session.receive(ack(id))
    expect(repeated.transport.closedWith).toBeUndefined()
    repeated.session.receive(ack(id))
    expect(repeated.transport.closedWith).toBe(closeKinds.protocolViolation)

    const large = opened(1)
    // The first is free, and each of those after it costs 12 of 32.
    for (let index = 0; index < 3; index++) large.session.receive(result(large.sent[0]?.messageId ?? ''))
    expect(large.transport.closedWith).toBeUndefined()
    large.session.receive(result(large.sent[0]?.messageId ?? ''))
    expect(large.transport.closedWith).toBe(closeKinds.protocolViolation)

    const mixed = opened(4)
    // 3 each: themselves, and two times ten ids.
    for (const { messageId } of mixed.sent) mixed.session.receive(ack(messageId, ...Array(19).fill('other')))
    for (let index = 0; index < 20; index++) mixed.session.receive(ping)
    expect(mixed.transport.closedWith).toBeUndefined()
    mixed.session.receive(ping)
    expect(mixed.transport.closedWith).toBe(closeKinds.protocolViolation)
  })
})

test('pings and pongs of the transport count as well', () => {
  const edge = fakeEdge({ deviceFrames: rules })
  const { session, transport } = edge.open()
  for (let index = 0; index < 50; index++) expect([session.pinged(), session.ponged()]).toEqual([true, true])
  expect(session.ponged()).toBe(false)
  expect(transport.closedWith).toBe(closeKinds.protocolViolation)
})

test('a device that asks and does not read is closed, though it gives signs of life; one that reads in between is not', async () => {
  const edge = fakeEdge({ unreadRepliesMax: 5 })
  const { session, transport } = edge.open()
  transport.writable = false
  for (let index = 0; index < 3; index++) session.receive(ping)
  for (let index = 0; index < 2; index++) expect(session.pinged()).toBe(false)
  transport.writable = true
  session.writable()
  transport.writable = false
  for (let index = 0; index < 5; index++) session.pinged()
  expect(transport.closedWith).toBeUndefined()
  session.receive(ping)
  expect(transport.closedWith).toBe(closeKinds.protocolViolation)
  expect(transport.ofType('pong')).toEqual([])
  expect(await ends(edge, 'unread')).toBe(1)
  expect(await metricValue(edge.metrics, 'push_edge_control_frames_dropped_total', { type: 'pong' })).toBe(11)
})

edgeTest(
  'a flood of WebSocket pings is answered, then ended by error and 4502; the limit may change meanwhile',
  async ({ edge }) => {
    await edge.start({ EDGE_DEVICE_FRAMES_PER_SECOND: '1', EDGE_DEVICE_FRAME_BURST: '1000' })
    const client = rawClient(new URL(edge.url()).host)
    client.write(handshakeText())
    await expect.poll(() => client.received().includes('"welcome"')).toBe(true)
    edge.reload({ EDGE_DEVICE_FRAME_BURST: '40' })
    client.write(Buffer.concat(Array.from({ length: 60 }, () => wireFrame(9, Buffer.from('ping-data')))))
    expect(await client.closeCode()).toBe(4502)
    const received = client.received().toString('latin1')
    expect(received.match(/ping-data/g)).toHaveLength(40)
    expect(received).toContain('RATE_EXCEEDED')
    expect(await edge.metric('push_edge_frame_limit_ends_total', { limit: 'rate' })).toBe(1)
    client.end()
  },
)

edgeTest('a device that pings and never reads does not make the edge keep its pongs', async ({ edge }) => {
  await edge.start({ EDGE_DEVICE_FRAMES_PER_SECOND: '100000', EDGE_DEVICE_FRAME_BURST: '1000000' })
  const client = rawClient(new URL(edge.url()).host)
  client.write(handshakeText())
  await expect.poll(() => client.received().includes('"welcome"')).toBe(true)
  client.pause()
  // Until the kernel's buffers are full of pongs, and then a hundred more.
  const pings = Buffer.concat(Array.from({ length: 2_000 }, () => wireFrame(9, Buffer.alloc(120))))
  const flood = setInterval(() => client.write(pings), 2)
  await expect.poll(() => edge.metric('push_edge_frame_limit_ends_total', { limit: 'unread' }), { timeout: 60_000 }).toBe(1)
  clearInterval(flood)
  client.end()
})
