import fc from 'fast-check'
import { afterEach, describe, expect } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { answersBurst, answersInFlightMax, answersPerSecond, decodeAnswers } from './answer-requests.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { connectForm, postAnswers } from './testing/device-forms.ts'
import { test } from './testing/edge-fixture.ts'
import { serveLone } from './testing/lone-events.ts'
import { rawClient } from './testing/raw-client.ts'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function lone(...more: Parameters<typeof serveLone>) {
  const served = await serveLone(...more)
  closers.push(() => served.server.close())
  const post = (body: unknown, headers: Record<string, string> = { authorization: 'Bearer dev:tv-1' }) =>
    postAnswers(served.server.address, body, headers)
  return { ...served, post }
}

const ack = { type: 'ack', ids: ['a'] }

test('a frame or a list of frames is taken, for the device that the credential names', async () => {
  const { post, taken } = await lone()
  expect((await post(ack)).status).toBe(204)
  const more = [
    { type: 'nack', id: 'b', reason: 'no', device_id: 'tv-2' },
    { type: 'result', id: 'c', status: 'ok', data: { n: 1 } },
    { type: 'ping' },
  ]
  expect(await post(more)).toMatchObject({ status: 204, text: '' })
  expect(taken).toEqual([
    { deviceId: 'tv-1', frame: ack },
    { deviceId: 'tv-1', frame: { type: 'nack', id: 'b', reason: 'no' } },
    { deviceId: 'tv-1', frame: { type: 'result', id: 'c', status: 'ok', data: { n: 1 } } },
    { deviceId: 'tv-1', frame: { type: 'ping' } },
  ])
})

describe('a request with something wrong in it changes nothing, and is told what', () => {
  test.for([
    ['not JSON', '{', 400, 'INVALID_FRAME', 'this is not JSON'],
    ['no frames', '[]', 400, 'INVALID_FRAME', '1 to 100 frames'],
    ['too many frames', JSON.stringify(Array(101).fill(ack)), 400, 'INVALID_FRAME', '1 to 100 frames'],
    ['a list in a list', '[[]]', 400, 'INVALID_FRAME', 'frame 1 of 1'],
    ['one bad frame among good ones', [ack, { type: 'ack', ids: [] }], 400, 'INVALID_FRAME', 'frame 2 of 2: ack: ids'],
    ['a type that is not known', [ack, { type: 'subscribe' }], 400, 'UNKNOWN_TYPE', 'subscribe'],
    ['a body that is too large', { ...ack, more: 'x'.repeat(70_000) }, 413, 'INVALID_FRAME', '65536 bytes'],
  ] as const)('%s', async ([_name, body, status, reason, words]) => {
    const { post, taken } = await lone()
    const answer = await post(body)
    expect(answer.status).toBe(status)
    expect(JSON.parse(answer.text)).toEqual({ type: 'error', reason, message: expect.stringContaining(words) })
    expect(taken).toEqual([])
  })

  test('a body without a length is counted as it comes', async () => {
    const { server, taken } = await lone()
    const client = rawClient(server.address)
    client.write('POST /v1/answers HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer dev:tv-1\r\nTransfer-Encoding: chunked\r\n\r\n')
    for (let sent = 0; sent < 70_000; sent += 4_096) client.write(`1000\r\n${' '.repeat(4_096)}\r\n`)
    expect(await client.status()).toBe(413)
    await client.closed
    expect(taken).toEqual([])
  })

  test('no credential, one that does not hold, one that cannot be judged now', async () => {
    const { post } = await lone()
    expect((await post(ack, {})).status).toBe(401)
    expect(await post(ack, { authorization: 'Bearer junk' })).toMatchObject({
      status: 401,
      text: expect.stringContaining('UNAUTHENTICATED'),
    })
    const away = await lone({ identity: { authenticate: async () => ({ ok: false, verdict: 'unavailable', detail: 'away' }) } })
    const answer = await away.post(ack)
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1'])
    expect(away.refusals()).toEqual([['identity_unavailable', 503]])
  })

  test('a page of another origin, and another method', async () => {
    const { post, server } = await lone()
    const origin = { authorization: 'Bearer dev:tv-1', origin: 'https://evil.example' }
    expect((await post(ack, origin)).status).toBe(403)
    const allowed = await post(ack, { ...origin, origin: 'https://good.example' })
    expect([allowed.status, allowed.headers.get('access-control-allow-origin')]).toEqual([204, 'https://good.example'])
    const response = await fetch(`http://${server.address}/v1/answers`)
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST, OPTIONS'])
    const preflight = await fetch(`http://${server.address}/v1/answers`, {
      method: 'OPTIONS',
      headers: { origin: 'https://good.example' },
    })
    expect([preflight.status, preflight.headers.get('access-control-allow-methods')]).toEqual([204, 'POST'])
  })

  const head = 'POST /v1/answers HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer dev:tv-1\r\nContent-Length: 50\r\n\r\n{'

  test('a body that does not come is given up', async () => {
    const { server, taken } = await lone({}, { handshakeTimeoutMs: 300 })
    const slow = rawClient(server.address)
    slow.write(head)
    expect(await slow.status()).toBe(408)
    await slow.closed
    expect(taken).toEqual([])
  })

  test('one whose client goes is forgotten', async () => {
    const { server, taken, metric } = await lone()
    const gone = rawClient(server.address)
    gone.write(head)
    await expect.poll(() => metric('push_edge_answer_requests')).toBe(1)
    gone.end()
    await expect.poll(() => metric('push_edge_answer_requests')).toBe(0)
    expect(taken).toEqual([])
  })
})

test('a device that asks too often gets 429 until its rate allows it again; others notice nothing', async () => {
  const clock = new SteeredClock()
  const { post, taken } = await lone({ clock })
  for (let count = 0; count < answersBurst; count++) expect((await post(ack)).status).toBe(204)
  const refused = await post(ack)
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '1'])
  expect((await post(ack, { authorization: 'Bearer dev:tv-2' })).status).toBe(204)
  await clock.advance(1_000 / answersPerSecond)
  expect((await post(ack)).status).toBe(204)
  expect((await post(ack)).status).toBe(429)
  expect(taken).toHaveLength(answersBurst + 2)
})

test('what a device may send on a WebSocket it may send here: frames by their number and size, long acks by their ids', async () => {
  const clock = new SteeredClock()
  const { post, taken, refusals } = await lone({ clock, deviceFrames: () => ({ ratePerSecond: 50, burst: 500 }) })
  const ids = Array.from({ length: 100 }, (_, index) => `m${index}`)
  const many = Array(40).fill({ type: 'ack', ids })
  // 40 frames and 400 times ten ids.
  expect((await post(many)).status).toBe(204)
  const refused = await post(many)
  expect([refused.status, JSON.parse(refused.text).reason]).toEqual([429, 'RATE_EXCEEDED'])
  expect(taken).toHaveLength(40)
  // Less is still taken: the refused one has cost nothing.
  expect((await post(Array(60).fill(ack))).status).toBe(204)
  expect((await post(ack)).status).toBe(429)
  await clock.advance(20)
  expect((await post(ack)).status).toBe(204)
  expect(refusals()).toEqual([
    ['answers_rate', 429],
    ['answers_rate', 429],
  ])
})

test('answers to what the device was sent count for nothing, unless the request holds something else too', async () => {
  const { post, taken } = await lone({
    clock: new SteeredClock(),
    deviceFrames: () => ({ ratePerSecond: 1, burst: 32 }),
    awaits: (deviceId, frame) => deviceId === 'tv-1' && frame.type === 'result' && frame.id.startsWith('sent'),
  })
  const result = (id: string) => ({ type: 'result', id, status: 'ok', data: 'y'.repeat(20_000) })
  for (let index = 0; index < 20; index++) {
    expect((await post([result(`sent-${index}`), result(`sent-too-${index}`)])).status).toBe(204)
  }
  // Ten of 32 each.
  const mixed = [result('sent'), result('other')]
  for (const status of [204, 204, 204, 429]) expect((await post(mixed)).status).toBe(status)
  expect(taken).toHaveLength(46)
})

test('above so many at once the edge asks to come later', async () => {
  const judged = Promise.withResolvers<void>()
  const identity = {
    async authenticate() {
      await judged.promise
      return { ok: true, deviceId: 'tv-1', accountId: undefined, expiresAtMs: undefined } as const
    },
  }
  const { server, post, metric } = await lone({ identity }, { connectionLimit: 2_000, handshakeTimeoutMs: 60_000 })
  const clients = Array.from({ length: 8 }, () => rawClient(server.address))
  closers.push(() => clients.map((client) => client.end()))
  // One connection may hold one request at a time only: the rest come by their own.
  for (let count = clients.length; count < answersInFlightMax; count++) clients.push(rawClient(server.address))
  for (const client of clients)
    client.write('POST /v1/answers HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer x\r\nContent-Length: 0\r\n\r\n')
  await expect.poll(() => metric('push_edge_answer_requests'), { timeout: 10_000 }).toBe(answersInFlightMax)
  expect((await post(ack)).status).toBe(503)
  judged.resolve()
  await expect.poll(() => metric('push_edge_answer_requests'), { timeout: 10_000 }).toBe(0)
})

test('whatever the body holds, it is frames or none', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json(),
        fc.string(),
        fc.array(fc.jsonValue()).map((list) => JSON.stringify(list)),
      ),
      (body) => {
        const decoded = decodeAnswers(body)
        if (!decoded.ok) expect(decoded.message.length).toBeLessThan(300)
      },
    ),
    { seed: 20_263, numRuns: 1_000 },
  )
  expect(decodeAnswers('['.repeat(60_000))).toMatchObject({ ok: false })
})

describe('with sessions', () => {
  test('answers go to the session that is here, whatever carries it; the place is free again', async ({ edge }) => {
    const { deviceAddress } = await edge.start()
    const device = await edge.open('dev:tv-1')
    const router = edge.router()
    const delivery = deliveryOf({}, { sessionId: device.sessionId })
    router.send({ deliveries: [delivery] })
    await device.next('message')
    const headers = { authorization: 'Bearer dev:tv-1' }
    // Another device's answer is none.
    await postAnswers(deviceAddress, { type: 'ack', ids: [delivery.messageId] }, { authorization: 'Bearer dev:tv-2' })
    expect(await router.kinds(delivery.deliveryId)).toEqual([OutcomeKind.WRITTEN])
    expect((await postAnswers(deviceAddress, { type: 'ack', ids: [delivery.messageId] }, headers)).status).toBe(204)
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([OutcomeKind.WRITTEN, OutcomeKind.ACKNOWLEDGED])
    await expect.poll(() => edge.plane.lateAnswers).toMatchObject([{ deviceId: 'tv-2' }])
  })

  test('answers to what came by the stream are not limited by their size', async ({ edge }) => {
    const { deviceAddress } = await edge.start({ EDGE_DEVICE_FRAMES_PER_SECOND: '1', EDGE_DEVICE_FRAME_BURST: '32' })
    const device = connectForm('event stream', deviceAddress, 'dev:tv-1')
    closers.push(() => device.drop())
    await device.next('welcome')
    const router = edge.router()
    const sent = Array.from({ length: 5 }, () =>
      deliveryOf({ confirm: 'RESULT' }, { sessionId: edge.plane.rows[0]?.sessionId ?? '' }),
    )
    router.send({ deliveries: sent })
    for (const { messageId, deliveryId } of sent) {
      const answers = [
        { type: 'ack', ids: [messageId] },
        { type: 'result', id: messageId, status: 'ok', data: 'y'.repeat(44 * 1024) },
      ]
      await router.kinds(deliveryId)
      const { status } = await postAnswers(deviceAddress, answers, { authorization: 'Bearer dev:tv-1' })
      expect(status).toBe(204)
      expect((await router.kinds(deliveryId, 3)).at(-1)).toBe(OutcomeKind.RESULT)
    }
  })

  test('answers to what another edge has sent go to a router, as late ones of that device', async ({ edge }) => {
    const { deviceAddress } = await edge.start()
    const frames = [
      { type: 'ack', ids: ['m1', 'm2'] },
      { type: 'nack', id: 'm3', reason: 'no' },
      { type: 'result', id: 'm4', status: 'failed', message: 'disk', data: { free: 0 } },
      { type: 'pong' },
    ]
    expect((await postAnswers(deviceAddress, frames, { authorization: 'Bearer dev:tv-1' })).status).toBe(204)
    await expect.poll(() => edge.plane.lateAnswers.length).toBe(4)
    expect(edge.plane.lateAnswers).toMatchObject([
      { deviceId: 'tv-1', messageId: 'm1', kind: OutcomeKind.ACKNOWLEDGED },
      { deviceId: 'tv-1', messageId: 'm2', kind: OutcomeKind.ACKNOWLEDGED },
      { deviceId: 'tv-1', messageId: 'm3', kind: OutcomeKind.NACKED, detail: 'no' },
      { deviceId: 'tv-1', messageId: 'm4', kind: OutcomeKind.RESULT, result: { ok: false, message: 'disk' } },
    ])
    // Said again, it is known.
    await postAnswers(deviceAddress, frames[0], { authorization: 'Bearer dev:tv-1' })
    expect(await edge.metric('push_edge_device_answers_total', { became: 'repeated' })).toBe(2)
  })

  test('a credential is for a stream that is here; without one nothing of the request is taken', async ({ edge }) => {
    const { deviceAddress } = await edge.start()
    // A WebSocket is shown its new credentials itself.
    await edge.open('dev:tv-1')
    const body = [ack, { type: 'credential', token: 'dev:tv-1' }]
    const refused = await postAnswers(deviceAddress, body, { authorization: 'Bearer dev:tv-1' })
    expect(refused).toMatchObject({ status: 409, text: expect.stringContaining('no event stream') })
    expect(await edge.metric('push_edge_refusals_total', { reason: 'no_stream' })).toBe(1)
    expect(edge.plane.lateAnswers).toEqual([])
    const device = connectForm('event stream', deviceAddress, 'dev:tv-1')
    closers.push(() => device.drop())
    await device.next('welcome')
    expect((await postAnswers(deviceAddress, body, { authorization: 'Bearer dev:tv-1' })).status).toBe(204)
    await device.next('credential_accepted')
    await expect.poll(() => edge.plane.lateAnswers.length).toBe(1)
  })

  test('a device on an event stream that posts nothing is one that does not answer', async ({ edge }) => {
    const { deviceAddress } = await edge.start()
    const device = connectForm('event stream', deviceAddress, 'dev:tv-1')
    closers.push(() => device.drop())
    await device.next('welcome')
    const router = edge.router()
    const deliveries = Array.from({ length: 49 }, () => deliveryOf({}, { sessionId: edge.plane.rows[0]?.sessionId ?? '' }))
    router.send({ deliveries })
    await expect.poll(() => router.outcomes.length).toBe(48)
    await edge.pass(62_000)
    expect((await device.closed).code).toBe(4003)
    const kinds = await router.kinds(deliveries[0]?.deliveryId ?? 0, 2)
    expect(kinds).toEqual([OutcomeKind.WRITTEN, OutcomeKind.CLOSED_UNACKNOWLEDGED])
    // It found no place, and was given back when it had waited too long.
    expect(await router.kinds(deliveries[48]?.deliveryId ?? 0)).toEqual([OutcomeKind.SLOW_CONSUMER])
  })

  test('while the edge drains it goes on taking answers', async ({ edge }) => {
    const { deviceAddress } = await edge.start({ EDGE_DRAIN_NOTICE_MS: '0', EDGE_DRAIN_MS: '2000', EDGE_DRAIN_GRACE_MS: '1000' })
    await edge.open('dev:tv-1')
    const stopped = edge.stop()
    await expect.poll(async () => (await fetch(`http://${deviceAddress}/readyz`)).status).toBe(503)
    expect((await postAnswers(deviceAddress, ack, { authorization: 'Bearer dev:tv-1' })).status).toBe(204)
    await edge.passUntil(stopped)
  })
})
