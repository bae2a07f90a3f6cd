import { describe, expect, test } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { closeKinds } from './close-codes.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { FakeSink, fakeEdge } from './testing/fake-session.ts'

const {
  WRITTEN,
  ACKNOWLEDGED,
  NACKED,
  NOT_CONNECTED,
  CLOSED_UNACKNOWLEDGED,
  SLOW_CONSUMER,
  ACCOUNT_MISMATCH,
  EXPIRED,
  REPLACED,
} = OutcomeKind

const ack = (...ids: string[]) => JSON.stringify({ type: 'ack', ids })

describe('messages', () => {
  test('nothing is written before welcome, then welcome comes first', () => {
    const { install } = fakeEdge()
    const { session, transport } = install()
    const sink = new FakeSink()
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    expect(transport.frames).toEqual([])
    expect(sink.outcomes).toEqual([])
    session.handle({ type: 'registered', epoch: 1, attempts: 1, replaced: [] })
    expect(transport.frames.map(({ type }) => type)).toEqual(['welcome', 'message'])
    expect(sink.kinds(1)).toEqual([WRITTEN])
  })

  test('when registering fails, all that waited are answered NOT_CONNECTED', () => {
    const { session } = fakeEdge().install()
    const sink = new FakeSink()
    session.deliver(deliveryOf({}), { sink, deliveryId: 1 })
    session.handle({ type: 'registration failed', attempts: 1 })
    expect(sink.kinds(1)).toEqual([NOT_CONNECTED])
    session.deliver(deliveryOf({}), { sink, deliveryId: 2 })
    expect(sink.kinds(2)).toEqual([NOT_CONNECTED])
  })

  test('a second delivery joins: it gets every outcome so far at once, then the later ones, and nothing is written again', () => {
    const { session, transport } = fakeEdge().open()
    const [first, second] = [new FakeSink(), new FakeSink()]
    const delivery = deliveryOf({ id: 'a' })
    session.deliver(delivery, { sink: first, deliveryId: 1 })
    session.deliver(delivery, { sink: second, deliveryId: 2 })
    expect(second.kinds(2)).toEqual([WRITTEN])
    session.receive(ack('a'))
    expect(first.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(second.kinds(2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(transport.ofType('message')).toHaveLength(1)
  })

  test('a delivery joins one that still waits, and both are told when it is written', () => {
    const { session, transport } = fakeEdge().open()
    const sink = new FakeSink()
    transport.writable = false
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 2 })
    expect(sink.outcomes).toEqual([])
    transport.writable = true
    session.writable()
    expect(transport.ofType('message')).toHaveLength(1)
    expect([sink.kinds(1), sink.kinds(2)]).toEqual([[WRITTEN], [WRITTEN]])
  })

  test('a stream that is over is told nothing, and the answer counts as unclaimed', async () => {
    const { open, metrics } = fakeEdge()
    const { session } = open()
    const sink = new FakeSink()
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    sink.ended = true
    session.receive(ack('a'))
    expect(sink.kinds(1)).toEqual([WRITTEN])
    expect(await metricValue(metrics, 'push_edge_device_answers_total', { became: 'unclaimed' })).toBe(1)
  })

  test('those who wait for one message are bounded: the one that waits longest is let go', () => {
    const { session } = fakeEdge().open()
    const sink = new FakeSink()
    for (let deliveryId = 1; deliveryId <= 17; deliveryId++) session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId })
    session.receive(ack('a'))
    expect(sink.kinds(1)).toEqual([WRITTEN])
    expect(sink.kinds(2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(sink.kinds(17)).toEqual([WRITTEN, ACKNOWLEDGED])
  })

  test('the device is asked for its words, and a result acknowledges or refuses', () => {
    const { session } = fakeEdge().open()
    const sink = new FakeSink()
    for (const id of ['a', 'b', 'c']) session.deliver(deliveryOf({ id }), { sink, deliveryId: id.charCodeAt(0) })
    session.receive(JSON.stringify({ type: 'nack', id: 'a', reason: 'no such command' }))
    session.receive(JSON.stringify({ type: 'result', id: 'b', status: 'ok', data: 1 }))
    session.receive(JSON.stringify({ type: 'result', id: 'c', status: 'failed', message: 'disk full' }))
    const last = (id: string) => sink.outcomes.filter((outcome) => outcome.deliveryId === id.charCodeAt(0)).at(-1)
    expect(last('a')).toMatchObject({ kind: NACKED, detail: 'no such command' })
    expect(last('b')).toMatchObject({ kind: ACKNOWLEDGED })
    expect(last('c')).toMatchObject({ kind: NACKED, detail: 'disk full' })
  })

  test('answers to unknown ids and repeated answers are counted and harmless', async () => {
    const { open, metrics } = fakeEdge()
    const { session, transport } = open()
    session.deliver(deliveryOf({ id: 'a' }), { sink: new FakeSink(), deliveryId: 1 })
    session.receive(ack('a', 'nobody-sent-this'))
    session.receive(ack('a'))
    expect(await metricValue(metrics, 'push_edge_device_answers_total', { became: 'unknown' })).toBe(1)
    expect(await metricValue(metrics, 'push_edge_device_answers_total', { became: 'repeated' })).toBe(1)
    expect(transport.ofType('error')).toEqual([])
  })

  test('a device may answer on its new connection what came by the old one', () => {
    const { open } = fakeEdge()
    const [old, young] = [open(), open()]
    const sink = new FakeSink()
    old.session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    young.session.receive(ack('a'))
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED])
  })

  test('another device cannot answer for it', () => {
    const { open } = fakeEdge()
    const [mine, other] = [open(), open({ deviceId: 'other' })]
    const sink = new FakeSink()
    mine.session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    other.session.receive(ack('a'))
    expect(sink.kinds(1)).toEqual([WRITTEN])
  })

  test('with acks=none WRITTEN is final, and a repeat is given it instead of being written', () => {
    const { open, host } = fakeEdge()
    const { session } = open({ acknowledges: false })
    const sink = new FakeSink()
    for (let deliveryId = 1; deliveryId <= 100; deliveryId++)
      session.deliver(deliveryOf({ id: `m${deliveryId}` }), { sink, deliveryId })
    expect(sink.outcomes).toHaveLength(100)
    expect(sink.outcomes[99]).toMatchObject({ kind: WRITTEN, final: true })
    expect(host.finalAnswers.find('tv-1', 'm1')).toMatchObject({ kind: WRITTEN, final: true })
  })

  test('the account is checked when the frame is written', () => {
    const { install } = fakeEdge()
    const { session, transport } = install({ accountId: 'anna' })
    const sink = new FakeSink()
    ;['ben', 'anna', ''].forEach((accountId, index) => {
      session.deliver(deliveryOf({ id: `m${index}` }, { accountId }), { sink, deliveryId: index })
    })
    // Not yet: nothing is written while it is registering.
    expect(sink.outcomes).toEqual([])
    session.handle({ type: 'registered', epoch: 1, attempts: 1, replaced: [] })
    expect([0, 1, 2].map((id) => sink.kinds(id))).toEqual([[ACCOUNT_MISMATCH], [WRITTEN], [WRITTEN]])
    expect(transport.ofType('message').map(({ id }) => id)).toEqual(['m1', 'm2'])
  })

  test('a session without an account gets no account message', () => {
    const { session, transport } = fakeEdge().open()
    const sink = new FakeSink()
    session.deliver(deliveryOf({}, { accountId: 'anna' }), { sink, deliveryId: 1 })
    expect(sink.kinds(1)).toEqual([ACCOUNT_MISMATCH])
    expect(transport.ofType('message')).toEqual([])
  })

  test('what waits expires by its remaining time, whatever the wall clock does', async () => {
    const { open, clock } = fakeEdge()
    const { session, transport } = open()
    const sink = new FakeSink()
    transport.writable = false
    session.deliver(deliveryOf({ id: 'a' }, { remainingTime: 10_000_000 }), { sink, deliveryId: 1 })
    session.deliver(deliveryOf({ id: 'b' }, { remainingTime: 30_000_000, expireTime: 1 }), { sink, deliveryId: 2 })
    clock.stepWall(3_600_000)
    await clock.advance(9_000)
    expect(sink.outcomes).toEqual([])
    clock.stepWall(-7_200_000)
    await clock.advance(2_000)
    expect(sink.kinds(1)).toEqual([EXPIRED])
    transport.writable = true
    session.writable()
    expect(transport.ofType('message').map(({ id }) => id)).toEqual(['b'])
  })

  test('what has expired by the moment of writing is not written, also between two looks', async () => {
    const { open, clock } = fakeEdge()
    const { session, transport } = open()
    const sink = new FakeSink()
    transport.writable = false
    session.deliver(deliveryOf({}, { remainingTime: 500_000 }), { sink, deliveryId: 1 })
    clock.stall(500)
    transport.writable = true
    session.writable()
    expect(sink.kinds(1)).toEqual([EXPIRED])
    expect(transport.ofType('message')).toEqual([])
    session.deliver(deliveryOf({}, { remainingTime: 0 }), { sink, deliveryId: 2 })
    expect(sink.kinds(2)).toEqual([EXPIRED])
  })

  test('a newer version replaces one that waits, which is told so also when it comes again', () => {
    const { open, host } = fakeEdge()
    const { session, transport } = open()
    const sink = new FakeSink()
    transport.writable = false
    const version = (id: string, more = {}) => deliveryOf({ id, collapse_key: 'k' }, more)
    session.deliver(version('v1'), { sink, deliveryId: 1 })
    session.deliver(version('v2'), { sink, deliveryId: 2 })
    session.deliver(version('other-principal', { principal: 'p2' }), { sink, deliveryId: 3 })
    session.deliver(version('other-target', { target: 'account/a' }), { sink, deliveryId: 4 })
    session.deliver(version('other-class', { messageClass: 2 }), { sink, deliveryId: 5 })
    expect(sink.kinds(1)).toEqual([REPLACED])
    expect(host.finalAnswers.find('tv-1', 'v1')).toMatchObject({ kind: REPLACED })
    session.deliver(version('v0', { acceptTime: 5 }), { sink, deliveryId: 6 })
    expect(sink.kinds(6)).toEqual([REPLACED])
    transport.writable = true
    session.writable()
    expect(transport.ofType('message').map(({ id }) => id)).toEqual(['v2', 'other-principal', 'other-target', 'other-class'])
  })

  test('a full outbox answers SLOW_CONSUMER and keeps nothing', () => {
    const { open, host } = fakeEdge({ outbox: { bytes: 4_000, count: 100 } })
    const { session, transport } = open()
    const sink = new FakeSink()
    transport.writable = false
    session.deliver(deliveryOf({ id: 'a', data: 'x'.repeat(2_500) }), { sink, deliveryId: 1 })
    const held = host.outboxBudget.usedBytes
    session.deliver(deliveryOf({ id: 'b', data: 'x'.repeat(500) }), { sink, deliveryId: 2 })
    expect(sink.kinds(2)).toEqual([SLOW_CONSUMER])
    expect(session.holds('b')).toBe(false)
    expect(host.outboxBudget.usedBytes).toBe(held)
  })
})

describe('unanswered messages', () => {
  const fill = (count: number, frame = {}) => {
    const edge = fakeEdge()
    const { session, transport } = edge.open()
    const sink = new FakeSink()
    for (let deliveryId = 1; deliveryId <= count; deliveryId++) {
      session.deliver(deliveryOf({ id: `m${deliveryId}`, ...frame }), { sink, deliveryId })
    }
    return { ...edge, session, transport, sink }
  }

  test('48 at most, the rest waits in the outbox until one is answered', () => {
    const { session, transport } = fill(50)
    expect(transport.ofType('message')).toHaveLength(48)
    session.receive(ack('m1'))
    expect(
      transport
        .ofType('message')
        .map(({ id }) => id)
        .at(-1),
    ).toBe('m49')
  })

  test('16 more places are kept for HIGH and RECOVERY, which pass what waits', () => {
    const { session, transport, sink } = fill(49)
    session.deliver(deliveryOf({ id: 'heal', class: 'RECOVERY' }), { sink, deliveryId: 100 })
    session.deliver(deliveryOf({ id: 'high', priority: 'HIGH' }), { sink, deliveryId: 101 })
    expect(
      transport
        .ofType('message')
        .map(({ id }) => id)
        .slice(48),
    ).toEqual(['heal', 'high'])
    for (let index = 0; index < 20; index++) session.deliver(deliveryOf({ priority: 'HIGH' }), { sink, deliveryId: 200 + index })
    expect(transport.ofType('message')).toHaveLength(64)
  })

  test('without a free place for 60 s the device is closed with 4003; an answer meanwhile starts the time anew', async () => {
    const { session, transport, clock, sink } = fill(49)
    await clock.advance(59_000)
    session.receive(ack('m1')) // m49 takes the place at once
    await clock.advance(58_000)
    session.heard()
    expect(transport.closedWith).toBeUndefined()
    await clock.advance(4_000)
    expect(transport.closedWith).toBe(closeKinds.slowConsumer)
    expect(sink.kinds(49)).toEqual([WRITTEN])
  })

  test('a device that does not read is closed with 4003 after 60 s with messages waiting', async () => {
    const { session, transport, clock } = fill(0)
    transport.writable = false
    session.deliver(deliveryOf({}), { sink: new FakeSink(), deliveryId: 1 })
    for (let second = 0; second < 62; second++) {
      session.heard() // alive, but not reading
      await clock.advance(1_000)
    }
    expect(transport.closedWith).toBe(closeKinds.slowConsumer)
  })
})

describe('when the connection ends', () => {
  test('what was written is CLOSED_UNACKNOWLEDGED, what was not is NOT_CONNECTED', () => {
    const { open, unregistered, host } = fakeEdge()
    const { session, transport } = open({ sessionId: 's' })
    const sink = new FakeSink()
    session.deliver(deliveryOf({}), { sink, deliveryId: 1 })
    transport.writable = false
    session.deliver(deliveryOf({}), { sink, deliveryId: 2 })
    session.socketClosed()
    expect(sink.kinds(1)).toEqual([WRITTEN, CLOSED_UNACKNOWLEDGED])
    expect(sink.kinds(2)).toEqual([NOT_CONNECTED])
    expect(unregistered).toEqual([{ deviceId: 'tv-1', sessionId: 's', epoch: 101 }])
    expect(host.sessions.size).toBe(0)
    expect(host.wheel.size).toBe(0)
    expect(host.outboxBudget.usedBytes).toBe(0)
  })

  test('an answer that comes while the socket is closing still counts', () => {
    const { session, transport } = fakeEdge().open()
    const sink = new FakeSink()
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    session.handle({ type: 'end', kind: closeKinds.drain })
    expect(transport.closedWith).toBe(closeKinds.drain)
    session.receive(ack('a'))
    session.socketClosed()
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED])
  })

  test('a replaced session finishes its outbox and answers, then closes at once', () => {
    const { session, transport } = fakeEdge().open()
    const sink = new FakeSink()
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    transport.writable = false
    session.deliver(deliveryOf({ id: 'b' }), { sink, deliveryId: 2 })
    session.handle({ type: 'replaced', replacer: { epoch: 999, sessionId: 'new' } })
    transport.writable = true
    session.writable()
    session.deliver(deliveryOf({ id: 'c' }), { sink, deliveryId: 3 })
    expect(sink.kinds(3)).toEqual([NOT_CONNECTED])
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 4 })
    expect(sink.kinds(4)).toEqual([WRITTEN])
    session.receive(ack('a'))
    expect(transport.closedWith).toBeUndefined()
    session.receive(ack('b'))
    expect(transport.closedWith).toBe(closeKinds.superseded)
    expect(sink.kinds(2)).toEqual([WRITTEN, ACKNOWLEDGED])
  })

  test('a replaced session that does not finish is closed after 5 s; one with nothing to finish at once', async () => {
    const { open, clock } = fakeEdge()
    const [busy, idle] = [open(), open()]
    busy.session.deliver(deliveryOf({}), { sink: new FakeSink(), deliveryId: 1 })
    for (const { session } of [busy, idle]) session.handle({ type: 'replaced', replacer: { epoch: 999, sessionId: 'new' } })
    expect(idle.transport.closedWith).toBe(closeKinds.superseded)
    await clock.advance(4_900)
    expect(busy.transport.closedWith).toBeUndefined()
    await clock.advance(300)
    expect(busy.transport.closedWith).toBe(closeKinds.superseded)
  })
})

describe('deadlines', () => {
  test('a session without its row after 5 s is closed with 1013', async () => {
    const { install, clock } = fakeEdge()
    const { transport } = install()
    await clock.advance(4_900)
    expect(transport.closedWith).toBeUndefined()
    await clock.advance(200)
    expect(transport.closedWith).toBe(closeKinds.tryAgainLater)
  })

  test('pings come at a random first phase, then at the interval', async () => {
    const { open, clock } = fakeEdge()
    const opened = Array.from({ length: 40 }, () => open())
    const beat = async (ms: number) => {
      for (const { session } of opened) session.heard()
      await clock.advance(ms)
    }
    for (let half = 0; half < 3; half++) await beat(9_900)
    const early = opened.filter(({ transport }) => transport.pings === 1).length
    expect(early).toBeGreaterThan(8)
    expect(early).toBeLessThan(32)
    for (let half = 0; half < 9; half++) await beat(9_900)
    for (const { transport } of opened) expect([1, 2]).toContain(transport.pings)
  })

  test('nothing heard after a ping closes with 4002, any frame is a sign of life', async () => {
    const { open, clock } = fakeEdge()
    const [silent, alive] = [open(), open()]
    for (let second = 0; second < 75; second++) {
      alive.session.receive('{"type":"ping"}')
      await clock.advance(1_000)
    }
    expect(silent.transport.pings).toBe(1)
    expect(silent.transport.closedWith).toBe(closeKinds.noPong)
    expect(alive.transport.pings).toBeGreaterThan(0)
    expect(alive.transport.closedWith).toBeUndefined()
  })

  test('a stall of the edge is not held against devices: the deadline moves by it', async () => {
    const { open, clock, metrics } = fakeEdge({ pingIntervalMs: 1_000 })
    const { transport } = open()
    while (transport.pings === 0) await clock.advance(100)
    clock.stall(60_000)
    await clock.advance(9_000)
    expect(transport.closedWith).toBeUndefined()
    await clock.advance(2_000)
    expect(transport.closedWith).toBe(closeKinds.noPong)
    expect(await metricValue(metrics, 'push_edge_stalls_total')).toBe(1)
  })

  test('bytes that wait in the socket are read before anyone is judged', async () => {
    const { open, clock } = fakeEdge({ pingIntervalMs: 1_000 })
    const { session, transport } = open()
    while (transport.pings === 0) await clock.advance(100)
    await clock.advance(9_500)
    // Late by less than a stall. The timers run first; what the sockets hold is read after them, before the verdict.
    clock.stall(900)
    session.due(clock.monotonic())
    session.heard()
    await clock.advance(300)
    expect(transport.closedWith).toBeUndefined()
  })

  test('lifetimes are spread over [L - J, L]; goaway keeps the connection, slot and grace end it with 4000', async () => {
    const { open, clock } = fakeEdge({ pingIntervalMs: 10 * 3_600_000 })
    const opened = Array.from({ length: 30 }, () => open())
    const leftAt: number[] = []
    const seen = new Set<unknown>()
    for (let second = 0; second <= 1_801; second++) {
      await clock.advance(1_000)
      for (const { transport } of opened) {
        if (seen.has(transport) || transport.ofType('goaway').length === 0) continue
        seen.add(transport)
        leftAt.push(second)
        expect(transport.closedWith).toBeUndefined()
      }
    }
    expect(leftAt).toHaveLength(30)
    expect(Math.min(...leftAt)).toBeGreaterThanOrEqual(899)
    expect(Math.min(...leftAt)).toBeLessThan(1_200)
    expect(Math.max(...leftAt)).toBeGreaterThan(1_500)
    const goaway = opened[0]?.transport.ofType('goaway')[0]
    expect(goaway).toMatchObject({ reason: 'lifetime' })
    expect(Number(goaway?.reconnect_after_ms)).toBeLessThanOrEqual(30_000)
    await clock.advance(61_000)
    for (const { transport } of opened) expect(transport.closedWith).toBe(closeKinds.lifetime)
  })

  test('no session outlives its row', async () => {
    const { open, clock } = fakeEdge({ pingIntervalMs: 10 * 3_600_000, lifetimeMs: 300_000, lifetimeJitterMs: 150_000 })
    for (let index = 0; index < 20; index++) {
      const { session, transport } = open()
      const { rowTtlMs } = session
      const startedAt = clock.monotonic()
      while (transport.closedWith === undefined) await clock.advance(5_000)
      expect(clock.monotonic() - startedAt).toBeLessThan(rowTtlMs)
      session.socketClosed()
    }
  })

  test('a drain that is taken back lets the session stay until its lifetime is over', async () => {
    const { open, clock, metrics } = fakeEdge({ lifetimeMs: 60_000, lifetimeJitterMs: 0, slotMaxMs: 0, slotGraceMs: 5_000 })
    const { session, transport } = open()
    session.leave('drain', 1_000, 1_000, closeKinds.drain)
    session.stay(closeKinds.drain)
    expect(await metricValue(metrics, 'push_edge_sessions', { state: 'open' })).toBe(1)
    await clock.advance(59_000)
    expect(transport.closedWith).toBeUndefined()
    await clock.advance(1_500)
    expect(transport.ofType('goaway').map(({ reason }) => reason)).toEqual(['drain', 'lifetime'])
    await clock.advance(6_000)
    expect(transport.closedWith).toBe(closeKinds.lifetime)
  })

  test('a drain that is taken back does not lengthen a lifetime that is over', async () => {
    const { open, clock } = fakeEdge({ lifetimeMs: 60_000, lifetimeJitterMs: 0, slotMaxMs: 30_000, slotGraceMs: 30_000 })
    const { session, transport } = open()
    const { rowTtlMs } = session
    const startedAt = clock.monotonic()
    while (transport.closedWith === undefined) {
      session.leave('drain', 1_000, 20_000, closeKinds.drain)
      await clock.advance(10_000)
      session.stay(closeKinds.drain)
      await clock.advance(1_000)
    }
    expect(clock.monotonic() - startedAt).toBeLessThan(rowTtlMs)
  })

  test('a session that is being closed is not kept by a drain that is taken back', async () => {
    const { open, clock } = fakeEdge()
    const { session, transport } = open()
    session.deliver(deliveryOf({ id: 'a' }), { sink: new FakeSink(), deliveryId: 1 })
    session.leave('drain', 1_000, 60_000, closeKinds.drain)
    session.handle({ type: 'disconnect', detail: '' })
    session.stay(closeKinds.drain)
    expect(session.accepts).toBe(false)
    await clock.advance(6_000)
    expect(transport.closedWith).toBe(closeKinds.disconnected)
  })

  test('messages and answers go on after goaway', () => {
    const { session, transport } = fakeEdge().open()
    const sink = new FakeSink()
    session.leave('drain', 1_000, 1_000, closeKinds.drain)
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    session.receive(ack('a'))
    expect(transport.frames.map(({ type }) => type)).toEqual(['welcome', 'goaway', 'message'])
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED])
  })

  test('a session ends with 4004 when its credential expires', async () => {
    const { open, clock } = fakeEdge()
    const { transport } = open({ credentialEndsAt: 20_000 })
    await clock.advance(19_900)
    expect(transport.closedWith).toBeUndefined()
    await clock.advance(200)
    expect(transport.closedWith).toBe(closeKinds.credentialExpired)
  })
})

describe('frames that are none', () => {
  test('are answered by error, and by 4502 when they are too many', () => {
    const { session, transport } = fakeEdge().open()
    session.receive('junk')
    session.receive(Buffer.from('{"type":"ping"}'))
    expect(transport.ofType('error').map(({ reason }) => reason)).toEqual(['INVALID_FRAME', 'INVALID_FRAME'])
    expect(transport.closedWith).toBeUndefined()
    session.receive('{}')
    expect(transport.closedWith).toBe(closeKinds.protocolViolation)
  })

  test('of a type that is not known here are answered, and no offence', () => {
    const { session, transport } = fakeEdge().open()
    for (let index = 0; index < 20; index++) session.receive('{"type":"subscribe"}')
    expect(transport.ofType('error').at(-1)).toMatchObject({ reason: 'UNKNOWN_TYPE' })
    expect(transport.closedWith).toBeUndefined()
  })

  test('before welcome count as such', () => {
    const { session, transport } = fakeEdge().install()
    session.receive(ack('a'))
    expect(transport.ofType('error')).toMatchObject([{ reason: 'INVALID_FRAME' }])
  })

  test('pongs are left out while the device does not read, so that it cannot pile them up', async () => {
    const { open, metrics } = fakeEdge()
    const { session, transport } = open()
    session.receive('{"type":"ping","data":"7"}')
    transport.writable = false
    session.receive('{"type":"ping"}')
    expect(transport.ofType('pong')).toEqual([{ type: 'pong', data: '7' }])
    expect(await metricValue(metrics, 'push_edge_control_frames_dropped_total', { type: 'pong' })).toBe(1)
  })
})
