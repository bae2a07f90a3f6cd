import { SignJWT } from 'jose'
import { afterEach, describe, expect } from 'vitest'
import { CloseReason, InboxReadyResult, OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { PushError } from '../service-kit/errors.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { connectForm, deviceForms, type FormDevice, type FormOptions, protocolOf } from './testing/device-forms.ts'
import { type EdgeFixture, test } from './testing/edge-fixture.ts'

// What a device and a router may rely on, whichever way the device's frames travel.

const { WRITTEN, ACKNOWLEDGED, NACKED, RESULT, CLOSED_UNACKNOWLEDGED, SLOW_CONSUMER } = OutcomeKind

const devices: FormDevice[] = []
afterEach(() => {
  for (const device of devices.splice(0)) device.drop()
})

describe.each(deviceForms)('%s', (form) => {
  let address = ''
  const start = async (edge: EdgeFixture, env?: Record<string, string>) => {
    const running = await edge.start(env)
    address = running.deviceAddress
    return running
  }
  const connect = (credential: string, options?: FormOptions) => {
    const device = connectForm(form, address, credential, options)
    devices.push(device)
    return device
  }
  const open = async (credential: string, options?: FormOptions) => {
    const device = connect(credential, options)
    const welcome = await device.next('welcome')
    return Object.assign(device, { welcome, sessionId: String(welcome.session_id) })
  }

  test('welcome comes first, and the row names the form', async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1/anna')
    expect(device.welcome).toMatchObject({
      device_id: 'tv-1',
      server_time: expect.any(Number),
      ping_interval_ms: 60_000,
      limits: { frame_bytes: 65_536, ack_ids: 100, unanswered_messages: 64 },
    })
    expect(device.frames[0]?.type).toBe('welcome')
    expect(edge.plane.rows).toMatchObject([
      { deviceId: 'tv-1', accountId: 'anna', sessionId: device.sessionId, protocol: protocolOf[form] },
    ])
    expect(await edge.metric('push_edge_sessions_admitted_total', { protocol: protocolOf[form] })).toBe(1)
  })

  test('ack, nack and result reach the router that waits', async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1')
    const router = edge.router()
    const deliveries = [
      deliveryOf({ data: { text: 'é\n' }, name: 'show' }, { sessionId: device.sessionId }),
      deliveryOf({}, { sessionId: device.sessionId }),
      deliveryOf({ confirm: 'RESULT' }, { sessionId: device.sessionId }),
    ]
    router.send({ deliveries })
    const [first, second, third] = deliveries.map(({ messageId }) => messageId)
    expect(await device.next('message')).toMatchObject({ id: first, name: 'show', data: { text: 'é\n' }, class: 'USER' })
    await device.next('message')
    await device.next('message')
    await device.send({ type: 'ack', ids: [first, third] })
    await device.send({ type: 'nack', id: second, reason: 'no handler' })
    await device.send({ type: 'result', id: third, status: 'ok', data: { files: [1, 2] }, message: 'done' })
    const kinds = await Promise.all(deliveries.map(({ deliveryId }, index) => router.kinds(deliveryId, index === 2 ? 3 : 2)))
    expect(kinds).toEqual([
      [WRITTEN, ACKNOWLEDGED],
      [WRITTEN, NACKED],
      [WRITTEN, ACKNOWLEDGED, RESULT],
    ])
    const result = router.outcomes.find(({ kind }) => kind === RESULT)?.result
    expect(result).toMatchObject({ ok: true, message: 'done' })
    expect(JSON.parse(String(result?.data))).toEqual({ files: [1, 2] })
    expect(router.outcomes.find(({ kind }) => kind === NACKED)?.detail).toBe('no handler')
  })

  test('a second delivery joins the first: one frame, both are told', async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1')
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    const again = { ...delivery, deliveryId: delivery.deliveryId + 1_000, redelivered: true }
    router.send({ deliveries: [delivery] })
    await device.next('message')
    router.send({ deliveries: [again] })
    expect(await router.kinds(again.deliveryId)).toEqual([WRITTEN])
    await device.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(await router.kinds(again.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(device.frames.filter(({ type }) => type === 'message')).toHaveLength(1)
  })

  test('with acks=none WRITTEN is final', async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1', { query: '?acks=none' })
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    router.send({ deliveries: [delivery] })
    await device.next('message')
    expect(await router.kinds(delivery.deliveryId)).toEqual([WRITTEN])
    expect(router.outcomes[0]).toMatchObject({ final: true })
  })

  test('a device that goes without an answer: CLOSED_UNACKNOWLEDGED, and its row is removed', async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1')
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    router.send({ deliveries: [delivery] })
    await device.next('message')
    device.drop()
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, CLOSED_UNACKNOWLEDGED])
    await expect.poll(() => edge.plane.rows).toEqual([])
  })

  test('make before break: after goaway a new session, an answer to what came by the old one, then 4005 there', async ({
    edge,
  }) => {
    await start(edge, { EDGE_LIFETIME_MS: '20000', EDGE_LIFETIME_JITTER_MS: '0' })
    const old = await open('dev:tv-1')
    const router = edge.router()
    await edge.pass(20_500)
    expect(await old.next('goaway')).toMatchObject({ reason: 'lifetime', reconnect_after_ms: expect.any(Number) })
    const delivery = deliveryOf({}, { sessionId: old.sessionId })
    router.send({ deliveries: [delivery] })
    await old.next('message')
    const young = await open('dev:tv-1')
    await edge.pass(1_000)
    await young.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect((await old.closed).code).toBe(4005)
    const next = deliveryOf({}, { sessionId: old.sessionId })
    router.send({ deliveries: [next] })
    await young.next('message')
    await router.kinds(next.deliveryId)
    expect(router.outcomes.at(-1)).toMatchObject({ sessionId: young.sessionId })
  })

  test('a device that does not leave in its slot is closed with 4000', async ({ edge }) => {
    await start(edge, {
      EDGE_LIFETIME_MS: '5000',
      EDGE_LIFETIME_JITTER_MS: '0',
      EDGE_SLOT_MAX_MS: '1000',
      EDGE_SLOT_GRACE_MS: '1000',
      EDGE_DRAIN_GRACE_MS: '1000',
    })
    const device = await open('dev:tv-1')
    await edge.pass(5_500)
    await device.next('goaway')
    await edge.pass(2_500)
    expect(await device.closed).toMatchObject({ code: 4000, reason: 'the session has reached its lifetime' })
  })

  test('in a drain: goaway, deliveries and answers go on, 4001 for who stays, no row is left', async ({ edge }) => {
    await start(edge, { EDGE_DRAIN_NOTICE_MS: '0', EDGE_DRAIN_MS: '4000', EDGE_DRAIN_GRACE_MS: '2000' })
    const device = await open('dev:tv-1')
    const router = edge.router()
    const stopped = edge.stop()
    await edge.pass(4_000)
    expect(await device.next('goaway')).toMatchObject({ reason: 'drain' })
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    router.send({ deliveries: [delivery] })
    await device.next('message')
    await device.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    await edge.pass(3_000)
    expect(await device.closed).toMatchObject({ code: 4001, reason: 'the edge drains' })
    await edge.passUntil(stopped)
    expect(edge.plane.rows).toEqual([])
  })

  test('superseded: 4005; disconnected by an operator: 4501 with the words', async ({ edge }) => {
    await start(edge)
    const first = await open('dev:tv-1')
    const second = await open('dev:tv-2')
    edge.router().send({
      closeSessions: [
        {
          closeId: 1,
          deviceId: 'tv-1',
          sessionId: first.sessionId,
          reason: CloseReason.SUPERSEDED,
          replacerSessionId: 'new',
          replacerEpoch: 9_999,
        },
        { closeId: 2, deviceId: 'tv-2', sessionId: second.sessionId, reason: CloseReason.DISCONNECTED, detail: 'é'.repeat(500) },
      ],
    })
    expect((await first.closed).code).toBe(4005)
    const { code, reason } = await second.closed
    expect(code).toBe(4501)
    expect(reason).toMatch(/^disconnected by an operator: é+$/)
    expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(123)
  })

  test('who registers with mail is flushed, once; a poke flushes again, and is answered when the inbox has been read', async ({
    edge,
  }) => {
    await start(edge)
    edge.plane.inboxUntil = 1
    const device = await open('dev:tv-1')
    await expect.poll(() => edge.plane.flushes).toMatchObject([{ deviceId: 'tv-1', sessionId: device.sessionId }])
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: device.sessionId, redelivered: true })
    router.send({ deliveries: [delivery] })
    expect(await device.next('message')).toMatchObject({ id: delivery.messageId, redelivered: true })
    await device.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    const asked = edge.plane.flushes.length
    router.send({ inboxReady: [{ pokeId: 3, deviceId: 'tv-1', sessionId: device.sessionId }] })
    const pokes = () => router.answers.flatMap(({ inboxReadyAnswers }) => inboxReadyAnswers)
    await expect.poll(pokes).toEqual([{ pokeId: 3, result: InboxReadyResult.ACCEPTED }])
    expect(edge.plane.flushes.length).toBe(asked + 1)
  })

  test('answers to what nobody here has sent go up as late ones, once', async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1')
    await device.send({ type: 'ack', ids: ['m1'] })
    await device.send({ type: 'nack', id: 'm2', reason: 'no' })
    await device.send({ type: 'result', id: 'm3', status: 'failed', message: 'disk' })
    await expect.poll(() => edge.plane.lateAnswers.length).toBe(3)
    expect(edge.plane.lateAnswers.toSorted((a, b) => a.messageId.localeCompare(b.messageId))).toMatchObject([
      { deviceId: 'tv-1', messageId: 'm1', kind: ACKNOWLEDGED },
      { deviceId: 'tv-1', messageId: 'm2', kind: NACKED, detail: 'no' },
      { deviceId: 'tv-1', messageId: 'm3', kind: RESULT, result: { ok: false, message: 'disk' } },
    ])
    await device.send({ type: 'ack', ids: ['m1'] })
    await expect.poll(() => edge.metric('push_edge_device_answers_total', { became: 'repeated' })).toBe(1)
    expect(edge.plane.lateAnswers).toHaveLength(3)
  })

  test("a device's answer to another one's message changes nothing there", async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1')
    const other = await open('dev:tv-2')
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    router.send({ deliveries: [delivery] })
    await device.next('message')
    await other.send({ type: 'ack', ids: [delivery.messageId] })
    // It goes up under its own name, where a router compares it with the device of the message.
    await expect.poll(() => edge.plane.lateAnswers).toMatchObject([{ deviceId: 'tv-2', messageId: delivery.messageId }])
    expect(await router.kinds(delivery.deliveryId)).toEqual([WRITTEN])
    await device.send({ type: 'ack', ids: [delivery.messageId] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
  })

  test('it goes on when a new one is shown in time', async ({ edge }) => {
    const secret = 's'.repeat(32)
    await start(edge, { EDGE_AUTH: 'jwt-hs256', EDGE_JWT_SECRET: secret })
    const begin = Math.floor(edge.clock.now() / 1_000)
    const tokenFor = (sub: string, exp: number) =>
      new SignJWT({ sub, exp }).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
    const device = await open(await tokenFor('tv-1', begin + 20))
    expect(device.welcome).toMatchObject({ credential_expire_time: (begin + 25) * 1e6 })
    await device.send({ type: 'credential', token: await tokenFor('tv-1', begin + 40) })
    expect(await device.next('credential_accepted')).toMatchObject({ expire_time: (begin + 45) * 1e6 })
    await device.send({ type: 'credential', token: await tokenFor('tv-1', begin + 60) })
    expect(await device.next('error')).toMatchObject({ reason: 'RATE_EXCEEDED' })
    await edge.pass(40_000)
    expect(edge.plane.rows).toHaveLength(1)
    await edge.pass(6_000)
    expect((await device.closed).code).toBe(4004)
    const other = await open(await tokenFor('tv-2', begin + 99))
    await other.send({ type: 'credential', token: await tokenFor('tv-3', begin + 99) })
    expect((await other.closed).code).toBe(4500)
  })

  test('the session ends with its credential: 4004', async ({ edge }) => {
    const secret = 's'.repeat(32)
    await start(edge, { EDGE_AUTH: 'jwt-hs256', EDGE_JWT_SECRET: secret })
    const exp = Math.floor(edge.clock.now() / 1_000) + 20
    const token = await new SignJWT({ sub: 'tv-1', exp }).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
    const device = await open(token)
    // The clocks of issuer and edge may be 5 s apart.
    await edge.pass(26_000)
    expect((await device.closed).code).toBe(4004)
  })

  test('one that cannot be registered in time gets 1013, and nothing before it', async ({ edge }) => {
    await start(edge)
    edge.plane.onRegister = async () => {
      throw new PushError('REGISTRY_UNAVAILABLE', 'away')
    }
    const device = connect('dev:tv-1')
    await expect.poll(() => edge.plane.registers.length).toBe(1)
    await edge.pass(5_500)
    expect((await device.closed).code).toBe(1013)
    expect(device.frames).toEqual([])
  })

  test('a device that reads and answers nothing else stays; its neighbour that does not read gets SLOW_CONSUMER, then is cut', async ({
    edge,
  }) => {
    await start(edge, { EDGE_PING_INTERVAL_MS: '10000', EDGE_PONG_TIMEOUT_MS: '5000', EDGE_STUCK_MS: '60000' })
    const alive = await open('dev:alive')
    const slow = await open('dev:slow', { query: '?acks=none' })
    slow.pause()
    const router = edge.router()
    const payload = Buffer.from(JSON.stringify('x'.repeat(60_000)))
    // Until the buffers of both ends and the outbox are full.
    await expect
      .poll(
        () => {
          const more = Array.from({ length: 3 }, () => deliveryOf({}, { deviceId: 'slow', sessionId: slow.sessionId, payload }))
          router.send({ deliveries: more })
          return router.outcomes.some(({ kind }) => kind === SLOW_CONSUMER)
        },
        { interval: 2, timeout: 50_000 },
      )
      .toBe(true)
    const delivery = deliveryOf({}, { deviceId: 'alive', sessionId: alive.sessionId })
    router.send({ deliveries: [delivery] })
    await alive.next('message')
    expect(await router.kinds(delivery.deliveryId)).toEqual([WRITTEN])
    expect((await edge.metric('push_edge_outbox_bytes')) ?? 0).toBeLessThanOrEqual(512 * 1024)
    await edge.pass(30_000)
    await expect.poll(() => edge.metric('push_edge_session_ends_total', { code: 'no_pong', by: 'edge' })).toBe(1)
    await expect.poll(() => edge.plane.rows.map(({ deviceId }) => deviceId)).toEqual(['alive'])
    slow.resume()
    await slow.closed
  })

  test('no more than 48 ordinary messages wait for their answers; one answer makes room for one', async ({ edge }) => {
    await start(edge)
    const device = await open('dev:tv-1')
    const router = edge.router()
    const deliveries = Array.from({ length: 50 }, () => deliveryOf({}, { sessionId: device.sessionId }))
    router.send({ deliveries })
    const count = () => device.frames.filter(({ type }) => type === 'message').length
    await expect.poll(count).toBe(48)
    await edge.pass(500)
    expect(count()).toBe(48)
    await device.send({ type: 'ack', ids: [deliveries[0]?.messageId] })
    await expect.poll(count).toBe(49)
  })
})
