import { describe, expect } from 'vitest'
import {
  CloseReason,
  CloseSessionResult,
  EdgeServiceDefinition,
  InboxReadyResult,
  OutcomeKind,
} from '../gen/push/internal/v1/edge.ts'
import type { RegisterResult, SessionRow } from '../gen/push/internal/v1/registry.ts'
import { systemClock } from '../service-kit/clock.ts'
import { callErrorOf, PushError } from '../service-kit/errors.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { test } from './testing/edge-fixture.ts'
import { handshakeText, rawClient } from './testing/raw-client.ts'

const { WRITTEN, ACKNOWLEDGED, NOT_CONNECTED, CLOSED_UNACKNOWLEDGED, SLOW_CONSUMER, ACCOUNT_MISMATCH, TOO_LARGE } = OutcomeKind

// Of a session that nobody has.
const ghostId = 'ghost-ghost-ghost-gho_'

const ghost = (edgeId: string, epoch: number): SessionRow => ({
  deviceId: 'tv-1',
  epoch,
  sessionId: ghostId,
  edgeId,
  edgeAddress: 'elsewhere:1',
  accountId: '',
  protocol: 'push.v1.json',
  connectedTime: 0,
})

describe('deliveries', () => {
  test('a message goes from a router through the edge to a device, and its answer back', async ({ edge }) => {
    await edge.start()
    const device = await edge.open('dev:tv-1/anna')
    const router = edge.router()
    const delivery = deliveryOf({ data: { text: 'hello' } }, { sessionId: device.sessionId, accountId: 'anna' })
    router.send({ deliveries: [delivery] })
    expect(await device.next('message')).toMatchObject({ id: delivery.messageId, data: { text: 'hello' }, class: 'USER' })
    expect(await router.kinds(delivery.deliveryId)).toEqual([WRITTEN])
    device.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(router.outcomes[1]).toMatchObject({ sessionId: device.sessionId, final: false })
    expect(edge.plane.rows).toMatchObject([{ deviceId: 'tv-1', accountId: 'anna', sessionId: device.sessionId }])
  })

  test('a batch is answered in few frames, and a bad item fails alone', async ({ edge }) => {
    await edge.start()
    const { sessionId } = await edge.open('dev:tv-1/anna')
    const router = edge.router()
    const good = Array.from({ length: 40 }, () => deliveryOf({}, { sessionId }))
    const bad = [
      deliveryOf({}, { sessionId, messageId: 'no id' }),
      deliveryOf({}, { sessionId: 'too-short' }),
      deliveryOf({}, { sessionId, priority: 0 }),
      deliveryOf({}, { sessionId, payload: Buffer.alloc(200_000), contentType: 'x/y' }),
      deliveryOf({}, { sessionId, accountId: 'ben' }),
    ]
    router.send({ deliveries: [...bad, ...good] })
    for (const { deliveryId } of good) expect(await router.kinds(deliveryId)).toEqual([WRITTEN])
    expect(bad.map(({ deliveryId }) => router.outcomes.find((outcome) => outcome.deliveryId === deliveryId)?.kind)).toEqual([
      TOO_LARGE,
      TOO_LARGE,
      TOO_LARGE,
      TOO_LARGE,
      ACCOUNT_MISMATCH,
    ])
    expect(router.answers.length).toBeLessThan(4)
  })

  test('another process than the one that was meant refuses with EDGE_RESTARTED', async ({ edge }) => {
    await edge.start()
    const router = edge.router('edge-00000000')
    router.send({})
    expect(callErrorOf(await router.ended)).toMatchObject({ reason: 'EDGE_RESTARTED' })
  })

  test('a stream that breaks is forgotten, its deliveries are not: the next one joins and gets the answer', async ({ edge }) => {
    await edge.start()
    const device = await edge.open('dev:tv-1')
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    const first = edge.router()
    first.send({ deliveries: [delivery] })
    await device.next('message')
    first.breakOff()
    await first.ended
    const second = edge.router()
    second.send({ deliveries: [{ ...delivery, deliveryId: 7_000, redelivered: true }] })
    expect(await second.kinds(7_000)).toEqual([WRITTEN])
    device.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await second.kinds(7_000, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    second.send({ deliveries: [{ ...delivery, deliveryId: 7_001 }] })
    expect(await second.kinds(7_001)).toEqual([ACKNOWLEDGED])
    expect(device.frames.filter(({ type }) => type === 'message')).toHaveLength(1)
  })

  test('a session that is not here: the newest open one of that device takes it, and the row that named the other is removed', async ({
    edge,
  }) => {
    await edge.start()
    const device = await edge.open('dev:tv-1')
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: ghostId })
    router.send({ deliveries: [delivery] })
    await device.next('message')
    await router.kinds(delivery.deliveryId)
    expect(router.outcomes[0]).toMatchObject({ kind: WRITTEN, sessionId: device.sessionId })
    await expect.poll(() => edge.plane.unregistered).toEqual([{ deviceId: 'tv-1', sessionId: ghostId, epoch: 0 }])
  })

  test('nobody there: NOT_CONNECTED, and the row is removed; another device is no substitute', async ({ edge }) => {
    await edge.start()
    await edge.open('dev:tv-2')
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: ghostId })
    router.send({ deliveries: [delivery], inboxReady: [{ pokeId: 5, deviceId: 'tv-2', sessionId: 'x' }] })
    expect(await router.kinds(delivery.deliveryId)).toEqual([NOT_CONNECTED])
    await expect.poll(() => edge.plane.unregistered).toEqual([{ deviceId: 'tv-1', sessionId: ghostId, epoch: 0 }])
    expect(router.answers.flatMap(({ inboxReadyAnswers }) => inboxReadyAnswers)).toEqual([
      { pokeId: 5, result: InboxReadyResult.NOT_CONNECTED },
    ])
  })

  test('a delivery for a session that is still registering waits, and fails with it', async ({ edge }) => {
    const answer = Promise.withResolvers<RegisterResult['result']>()
    await edge.start()
    edge.plane.onRegister = () => answer.promise
    const device = edge.connect('dev:tv-1')
    await expect.poll(() => edge.plane.registers.length).toBe(1)
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: edge.plane.registers[0]?.sessionId ?? '' })
    router.send({ deliveries: [delivery], closeSessions: [{ closeId: 1 }] })
    await expect.poll(() => router.answers.length).toBe(1)
    expect([router.outcomes, device.frames]).toEqual([[], []])
    answer.resolve({ $case: 'superseded', value: { by: undefined } })
    expect(await router.kinds(delivery.deliveryId)).toEqual([NOT_CONNECTED])
    expect((await device.closed).code).toBe(4005)
  })

  test('with acks=none WRITTEN is final', async ({ edge }) => {
    await edge.start()
    const { sessionId } = await edge.open('dev:tv-1', { query: '?acks=none' })
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId })
    router.send({ deliveries: [delivery] })
    await router.kinds(delivery.deliveryId)
    expect(router.outcomes).toMatchObject([{ kind: WRITTEN, final: true }])
  })

  test('the device goes: what was written is CLOSED_UNACKNOWLEDGED, and its row is removed', async ({ edge }) => {
    await edge.start()
    const device = await edge.open('dev:tv-1')
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    router.send({ deliveries: [delivery] })
    await device.next('message')
    device.webSocket.terminate()
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, CLOSED_UNACKNOWLEDGED])
    await expect.poll(() => edge.plane.rows).toEqual([])
    expect(edge.plane.unregistered).toMatchObject([{ sessionId: device.sessionId, epoch: 1_001 }])
  })

  test('a device that does not read gets SLOW_CONSUMER, and its neighbour notices nothing', async ({ edge }) => {
    // More is sent than a device is given a second: time stands still.
    const { deviceAddress } = await edge.start({ EDGE_DELIVERY_RATE_PER_SECOND: '0' })
    const slow = rawClient(deviceAddress)
    slow.write(handshakeText({ Authorization: 'Bearer dev:slow' }, '/v1/connect?acks=none'))
    await expect.poll(() => edge.plane.rows.length).toBe(1)
    slow.pause()
    const neighbour = await edge.open('dev:tv-1')
    const router = edge.router()
    const slowSession = edge.plane.rows[0]?.sessionId ?? ''
    const payload = Buffer.alloc(60_000, 'x')
    // Until the buffers of both ends and the outbox are full.
    await expect
      .poll(
        () => {
          const more = Array.from({ length: 3 }, () =>
            deliveryOf({}, { deviceId: 'slow', sessionId: slowSession, payload, contentType: 'text/plain' }),
          )
          router.send({ deliveries: more })
          return router.outcomes.some(({ kind }) => kind === SLOW_CONSUMER)
        },
        { interval: 2, timeout: 50_000 },
      )
      .toBe(true)
    const delivery = deliveryOf({}, { sessionId: neighbour.sessionId })
    router.send({ deliveries: [delivery] })
    await neighbour.next('message')
    expect(await router.kinds(delivery.deliveryId)).toEqual([WRITTEN])
    await edge.pass(1_000)
    const held = (await edge.metric('push_edge_outbox_bytes')) ?? 0
    expect(held).toBeGreaterThan(60_000)
    expect(held).toBeLessThanOrEqual(512 * 1024)
    slow.end()
    await expect.poll(() => router.outcomes.some(({ kind }) => kind === NOT_CONNECTED)).toBe(true)
  })

  test('Probe tells which edge it is', async ({ edge }) => {
    const { address, edgeId } = await edge.start()
    await edge.open('dev:tv-1')
    const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
    expect(await connection.client(EdgeServiceDefinition).probe({})).toEqual({ edgeId, sessionCount: 1 })
    connection.close()
  })
})

describe('closes', () => {
  const supersede = (sessionId: string, replacerEpoch: number, closeId = 1) => ({
    closeId,
    deviceId: 'tv-1',
    sessionId,
    reason: CloseReason.SUPERSEDED,
    replacerSessionId: 'new',
    replacerEpoch,
  })
  const resultsOf = (router: { answers: { closeSessionAnswers: { result: CloseSessionResult }[] }[] }) =>
    router.answers.flatMap(({ closeSessionAnswers }) => closeSessionAnswers.map(({ result }) => result))

  test('a session with a lower epoch closes with 4005, one with a higher stays', async ({ edge }) => {
    await edge.start()
    const device = await edge.open('dev:tv-1')
    const router = edge.router()
    router.send({ closeSessions: [supersede(device.sessionId, 1_000)] })
    await expect.poll(() => resultsOf(router)).toEqual([CloseSessionResult.NEWER])
    router.send({ closeSessions: [supersede(device.sessionId, 1_002)] })
    await expect.poll(() => resultsOf(router)).toEqual([CloseSessionResult.NEWER, CloseSessionResult.CLOSED])
    expect((await device.closed).code).toBe(4005)
    await expect.poll(() => edge.plane.rows).toEqual([])
  })

  test('for a session still registering it is remembered and judged when the answer comes', async ({ edge }) => {
    const held = Promise.withResolvers<void>()
    await edge.start()
    edge.plane.onRegister = async (_session, insert) => {
      const answer = insert()
      await held.promise
      return answer
    }
    const device = edge.connect('dev:tv-1')
    await expect.poll(() => edge.plane.rows.length).toBe(1)
    const router = edge.router()
    router.send({ closeSessions: [supersede(edge.plane.rows[0]?.sessionId ?? '', 1_002)] })
    await expect.poll(() => resultsOf(router)).toEqual([CloseSessionResult.REMEMBERED])
    held.resolve()
    expect((await device.closed).code).toBe(4005)
    expect(device.frames).toEqual([])
    await expect.poll(() => edge.plane.rows).toEqual([])
  })

  test('a session that is not here is not, and its row is removed; what makes no sense closes nothing', async ({ edge }) => {
    await edge.start()
    const { sessionId } = await edge.open('dev:tv-1')
    const router = edge.router()
    router.send({ closeSessions: [supersede(ghostId, 9_999), { closeId: 2, deviceId: 'tv-1', sessionId }] })
    await expect.poll(() => resultsOf(router)).toEqual([CloseSessionResult.NOT_CONNECTED, CloseSessionResult.NOT_CONNECTED])
    await expect.poll(() => edge.plane.unregistered).toEqual([{ deviceId: 'tv-1', sessionId: ghostId, epoch: 0 }])
    expect(edge.plane.rows).toHaveLength(1)
  })

  test("an operator's words reach the device, cut to what a close frame holds", async ({ edge }) => {
    await edge.start()
    const device = await edge.open('dev:tv-1')
    edge.router().send({
      closeSessions: [
        { closeId: 1, deviceId: 'tv-1', sessionId: device.sessionId, reason: CloseReason.DISCONNECTED, detail: 'é'.repeat(500) },
      ],
    })
    const { code, reason } = await device.closed
    expect(code).toBe(4501)
    expect(reason).toMatch(/^disconnected by an operator: é+$/)
  })
})

describe('registering', () => {
  test('without an answer after 5 s a device gets 1013, and the rows that its attempts have left are removed', async ({
    edge,
  }) => {
    const held = Promise.withResolvers<void>()
    await edge.start()
    edge.plane.onRegister = async (_session, insert) => {
      const answer = insert()
      await held.promise
      return answer
    }
    const device = edge.connect('dev:tv-1')
    await expect.poll(() => edge.plane.registers.length).toBe(1)
    await edge.pass(5_500)
    expect((await device.closed).code).toBe(1013)
    expect(device.frames).toEqual([])
    await expect.poll(() => edge.plane.unregistered.at(-1)).toMatchObject({ deviceId: 'tv-1', epoch: 0 })
    expect(edge.plane.registers.length).toBeGreaterThan(1)
    expect(edge.plane.rows).toEqual([])
    held.resolve()
  })

  test('after a repeated attempt all rows of the session are removed at its end', async ({ edge }) => {
    let attempts = 0
    await edge.start()
    edge.plane.onRegister = async (_session, insert) => {
      const answer = insert()
      if (++attempts === 1) throw new PushError('REGISTRY_UNAVAILABLE', 'the answer is lost')
      return answer
    }
    const device = edge.connect('dev:tv-1')
    await expect.poll(() => edge.plane.registers.length).toBe(1)
    await edge.pass(1_000)
    await device.next('welcome')
    expect(edge.plane.rows).toHaveLength(2)
    device.webSocket.close()
    await expect.poll(() => edge.plane.rows).toEqual([])
    expect(edge.plane.unregistered).toMatchObject([{ epoch: 0 }])
  })

  test('a device that has gone before the answer leaves no row', async ({ edge }) => {
    const held = Promise.withResolvers<void>()
    await edge.start()
    edge.plane.onRegister = async (_session, insert) => {
      await held.promise
      return insert()
    }
    const device = edge.connect('dev:tv-1')
    await expect.poll(() => edge.plane.registers.length).toBe(1)
    device.webSocket.terminate()
    await expect.poll(() => edge.metric('push_edge_sessions', { state: 'registering' })).toBe(0)
    held.resolve()
    await expect.poll(() => edge.plane.unregistered).toMatchObject([{ epoch: 1_001 }])
    expect(edge.plane.rows).toEqual([])
  })
})

describe('replaced sessions', () => {
  test('on this edge the older one is closed directly, the newer one stays; nothing goes to a router', async ({ edge }) => {
    await edge.start()
    const old = await edge.open('dev:tv-1')
    const young = await edge.open('dev:tv-1')
    expect((await old.closed).code).toBe(4005)
    await expect.poll(() => edge.plane.rows).toMatchObject([{ sessionId: young.sessionId }])
    expect(edge.plane.reports).toEqual([])
    young.send({ type: 'ping' })
    await young.next('pong')
  })

  test('make before break: after goaway the device opens the new session, answers on the old one, which then closes', async ({
    edge,
  }) => {
    await edge.start({ EDGE_LIFETIME_MS: '20000', EDGE_LIFETIME_JITTER_MS: '0' })
    const old = await edge.open('dev:tv-1')
    const router = edge.router()
    await edge.pass(20_500)
    expect(await old.next('goaway')).toMatchObject({ reason: 'lifetime' })
    const delivery = deliveryOf({}, { sessionId: old.sessionId })
    router.send({ deliveries: [delivery] })
    await old.next('message')
    const young = await edge.open('dev:tv-1')
    // Replaced, but owed an answer.
    await edge.pass(1_000)
    expect(old.webSocket.readyState).toBe(1)
    old.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect((await old.closed).code).toBe(4005)
    const next = deliveryOf({}, { sessionId: old.sessionId })
    router.send({ deliveries: [next] })
    await young.next('message')
    await router.kinds(next.deliveryId)
    expect(router.outcomes.at(-1)).toMatchObject({ sessionId: young.sessionId })
  })

  test('a device that does not leave in its slot is closed with 4000', async ({ edge }) => {
    await edge.start({
      EDGE_LIFETIME_MS: '5000',
      EDGE_LIFETIME_JITTER_MS: '0',
      EDGE_SLOT_MAX_MS: '1000',
      EDGE_SLOT_GRACE_MS: '1000',
      EDGE_DRAIN_GRACE_MS: '1000',
    })
    const device = await edge.open('dev:tv-1')
    await edge.pass(5_500)
    await device.next('goaway')
    await edge.pass(2_500)
    expect((await device.closed).code).toBe(4000)
  })

  test('on another edge it is reported until done, also when the new session has ended meanwhile', async ({ edge }) => {
    await edge.start()
    let attempts = 0
    edge.plane.onReport = async () => (++attempts < 3 ? 2 : 1)
    edge.plane.rows.push(ghost('edge-b', 7))
    const device = await edge.open('dev:tv-1')
    device.webSocket.terminate()
    await expect.poll(() => edge.plane.unregistered.length).toBe(1)
    await edge.pass(15_000)
    await expect.poll(() => edge.plane.reports.length).toBe(3)
    expect(edge.plane.reports[2]).toMatchObject({
      sessionId: ghostId,
      edgeId: 'edge-b',
      edgeAddress: 'elsewhere:1',
      replacerSessionId: device.sessionId,
      replacerEpoch: 1_001,
    })
    await expect.poll(() => edge.metric('push_edge_replaced_reports_total', { result: 'done' })).toBe(1)
  })

  test('a row of this edge without a session is removed by its key', async ({ edge }) => {
    const { edgeId } = await edge.start()
    edge.plane.rows.push(ghost(edgeId, 7))
    await edge.open('dev:tv-1')
    await expect.poll(() => edge.plane.unregistered).toEqual([{ deviceId: 'tv-1', sessionId: ghostId, epoch: 7 }])
  })
})

describe('liveness', () => {
  test('a device that answers no ping is closed with 4002, one that does stays', async ({ edge }) => {
    await edge.start({ EDGE_PING_INTERVAL_MS: '10000', EDGE_PONG_TIMEOUT_MS: '5000' })
    const silent = await edge.open('dev:silent', { autoPong: false })
    const alive = await edge.open('dev:alive')
    await edge.pass(40_000)
    expect((await silent.closed).code).toBe(4002)
    expect(alive.webSocket.readyState).toBe(1)
  })
})

describe('SIGTERM', () => {
  test('not ready and open until the balancer has noticed, then goaway to one after the other, 4001 for who stays, every row removed', async ({
    edge,
  }) => {
    const { deviceAddress } = await edge.start({
      EDGE_DRAIN_NOTICE_MS: '3000',
      EDGE_DRAIN_MS: '10000',
      EDGE_DRAIN_GRACE_MS: '2000',
    })
    const devices = await Promise.all(Array.from({ length: 9 }, (_, index) => edge.open(`dev:tv-${index}`)))
    const router = edge.router()
    const stopped = edge.stop()
    await expect.poll(() => edge.plane.renewals.at(-1)?.draining).toBe(true)
    expect((await fetch(`http://${deviceAddress}/readyz`)).status).toBe(503)
    devices.push(await edge.open('dev:tv-late'))
    await edge.pass(3_000)
    const late = rawClient(deviceAddress)
    late.write(handshakeText())
    expect(await late.status()).toBe(503)
    // Deliveries and answers go on until each socket closes.
    const [first] = devices
    const delivery = deliveryOf({}, { deviceId: 'tv-0', sessionId: first?.sessionId ?? '' })
    router.send({ deliveries: [delivery] })
    await first?.next('message')
    first?.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    const told = () => devices.filter(({ frames }) => frames.some(({ type }) => type === 'goaway'))
    await edge.pass(4_000)
    expect(told().length).toBeGreaterThanOrEqual(4)
    expect(told().length).toBeLessThanOrEqual(6)
    expect(edge.plane.rows.length).toBeGreaterThan(6)
    await edge.pass(4_000)
    expect(told().length).toBeGreaterThanOrEqual(8)
    await edge.pass(6_000)
    for (const device of devices) {
      expect((await device.next('goaway')).reconnect_after_ms).toBeLessThanOrEqual(1_000)
    }
    const codes = await Promise.all(devices.map(async (device) => (await device.closed).code))
    expect(new Set(codes)).toEqual(new Set([4001]))
    await edge.passUntil(stopped)
    expect(edge.plane.rows).toEqual([])
    expect(edge.plane.unregistered).toHaveLength(10)
    expect(await router.ended).toBe('ended')
    expect(edge.log.withPhrase('drain state changed').map(({ facts }) => facts.to)).toEqual([
      'not_ready',
      'evicting',
      'forcing',
      'gone',
    ])
  })

  test('a registry that is away keeps nobody from stopping', async ({ edge }) => {
    await edge.start({ EDGE_DRAIN_MS: '0', EDGE_DRAIN_GRACE_MS: '0' })
    await edge.open('dev:tv-1')
    edge.plane.onUnregister = async () => {
      throw new PushError('REGISTRY_UNAVAILABLE', 'away')
    }
    await edge.passUntil(edge.stop())
    expect(edge.log.withPhrase('rows of ended sessions were left behind')).toHaveLength(1)
  })
})

test('a registry that is away keeps nobody from starting', async ({ edge }) => {
  edge.plane.onRenew = async () => {
    throw new PushError('REGISTRY_UNAVAILABLE', 'away')
  }
  await edge.start()
  expect(edge.log.withPhrase('edge ready')).toMatchObject([
    { facts: { address: expect.any(String), device_address: expect.any(String) } },
  ])
})
