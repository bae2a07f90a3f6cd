import { EventSource } from 'eventsource'
import { afterEach, describe, expect } from 'vitest'
import { CloseReason, OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import type { Identity } from './auth/identity.ts'
import { closeKinds } from './close-codes.ts'
import type { DeviceServerOptions } from './device-server.ts'
import { retryMsAfter, wasToldToStayAway } from './sse.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { connectForm } from './testing/device-forms.ts'
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
  return served
}

const get = (address: string, init: RequestInit = {}, path = '/v1/events') =>
  fetch(`http://${address}${path}`, { headers: { authorization: 'Bearer dev:tv-1' }, ...init })

const judging = (verdict: 'invalid' | 'expired' | 'unavailable'): Identity => ({
  authenticate: async () => ({ ok: false, verdict, detail: `the token is ${verdict}` }),
})

const full: DeviceServerOptions['gate'] = { sessionCount: () => 10, backlogged: () => false }
const backlogged: DeviceServerOptions['gate'] = { sessionCount: () => 0, backlogged: () => true }

test('what comes behind a request for a stream on the same connection ends it, and piles up nowhere', async () => {
  const { server, admitted } = await lone()
  const client = rawClient(server.address)
  closers.push(() => client.end())
  const stream = 'GET /v1/events HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer dev:tv-1\r\n\r\n'
  client.write(stream)
  expect(await client.status()).toBe(200)
  client.write(stream)
  await client.closed
  expect(admitted).toHaveLength(1)
})

describe('who may come later is answered with a stream that says so and ends', () => {
  const overload = { type: 'goaway', reason: 'overload', reconnect_after_ms: 1_000 }
  test.for([
    ['draining', { ready: false }, { type: 'goaway', reason: 'drain', reconnect_after_ms: 1_000 }],
    ['full', { gate: full }, overload],
    ['backlog', { gate: backlogged }, overload],
    [
      'identity_unavailable',
      { identity: judging('unavailable') },
      { type: 'error', reason: 'OVERLOADED', message: 'the token is unavailable' },
    ],
  ] as const)('%s', async ([reason, { ready, ...more }, frame]: readonly [string, Record<string, unknown>, object]) => {
    const { server, refusals } = await lone(more)
    if (ready === false) server.setOpen(false)
    const response = await get(server.address)
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    const text = await response.text()
    const frames = [...text.matchAll(/^data: (.*)$/gm)].map((match) => JSON.parse(match[1] ?? ''))
    expect(frames).toEqual([frame, { type: 'close', code: 1013, reason: 'try again later' }])
    expect([...text.matchAll(/^retry: (\d+)$/gm)].map((match) => match[1])).toEqual(['1000', '1000'])
    expect(refusals()).toEqual([[reason, 1013]])
  })
})

describe('what will be no different the next time is answered with a status', () => {
  test('no credential, one that does not hold, one that has expired: 401, and which of them', async () => {
    const bodies = async (identity?: Identity, headers: Record<string, string> = { authorization: 'Bearer x' }) => {
      const { server } = await lone(identity === undefined ? {} : { identity })
      const response = await get(server.address, { headers })
      return [response.status, await response.json()]
    }
    expect(await bodies(undefined, {})).toEqual([
      401,
      { type: 'close', code: 4500, reason: expect.stringContaining('Authorization') },
    ])
    expect(await bodies(judging('invalid'))).toEqual([401, { type: 'close', code: 4500, reason: 'the token is invalid' }])
    expect(await bodies(judging('expired'))).toEqual([401, { type: 'close', code: 4004, reason: 'the token is expired' }])
  })

  test('a credential in the address is none', async () => {
    const { server, admitted, log } = await lone()
    const response = await get(server.address, { headers: {} }, '/v1/events?token=dev:tv-1&access_token=dev:tv-1')
    expect(response.status).toBe(401)
    expect(admitted).toEqual([])
    expect(JSON.stringify(log.withPhrase('device refused'))).not.toContain('tv-1')
  })

  test('another method, an unknown query, a page of another origin', async () => {
    const { server, refusals } = await lone()
    const post = await get(server.address, { method: 'POST' })
    expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, OPTIONS'])
    expect((await get(server.address, {}, '/v1/events?acks=some')).status).toBe(400)
    const headers = { authorization: 'Bearer dev:tv-1', origin: 'https://evil.example' }
    const foreign = await get(server.address, { headers })
    expect([foreign.status, foreign.headers.get('access-control-allow-origin')]).toEqual([403, null])
    // An image in a page of another site: it names no origin.
    const site = { authorization: 'Bearer dev:tv-1', 'sec-fetch-site': 'cross-site' }
    expect((await get(server.address, { headers: site })).status).toBe(403)
    expect(refusals()).toEqual([
      ['wrong_method', 405],
      ['wrong_query', 400],
      ['wrong_origin', 403],
      ['wrong_origin', 403],
    ])
  })
})

test('pages of allowed origins may ask and may read, also the refusals; others are told nothing', async () => {
  const { server } = await lone({ identity: judging('invalid') })
  const preflight = (origin: string) => get(server.address, { method: 'OPTIONS', headers: { origin } })
  const good = await preflight('https://good.example')
  expect(good.status).toBe(204)
  expect(Object.fromEntries(good.headers)).toMatchObject({
    'access-control-allow-origin': 'https://good.example',
    'access-control-allow-methods': 'GET',
    'access-control-allow-headers': expect.stringContaining('authorization'),
    vary: 'origin',
  })
  const evil = await preflight('https://evil.example')
  expect([evil.status, evil.headers.get('access-control-allow-origin')]).toEqual([403, null])
  const headers = { authorization: 'Bearer x', origin: 'https://good.example' }
  const refused = await get(server.address, { headers })
  expect([refused.status, refused.headers.get('access-control-allow-origin')]).toEqual([401, 'https://good.example'])
})

test('a device that goes while it is being judged is not let in', async () => {
  const judged = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const { server, admitted } = await lone({
    identity: {
      async authenticate() {
        asked.resolve()
        await judged.promise
        return { ok: true, deviceId: 'tv-1', accountId: undefined, expiresAtMs: undefined }
      },
    },
  })
  const client = rawClient(server.address)
  client.write('GET /v1/events HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer x\r\n\r\n')
  await asked.promise
  expect(server.handshakeCount).toBe(1)
  client.end()
  await client.closed
  // A few turns of the event loop, in which the edge sees it too.
  for (let turn = 0; turn < 5; turn++) await fetch(`http://${server.address}/healthz`)
  judged.resolve()
  await expect.poll(() => server.handshakeCount).toBe(0)
  expect(admitted).toEqual([])
})

test('who is stopped: who was told so, for something other than a credential', () => {
  expect(['close-4501', 'close-4502', 'close-4999'].every(wasToldToStayAway)).toBe(true)
  const others = [
    undefined,
    '',
    'close-',
    'close-4500',
    'close-4001',
    'close-5000',
    'close-x',
    '4501',
    '01890a5d-ac96-774b-bcce-b302099a8057',
  ]
  expect(others.some(wasToldToStayAway)).toBe(false)
})

test('the longer somebody shall stay away, the longer a plain client is told to wait', () => {
  const at = (code: number, share: number) => retryMsAfter(code, { next: () => share, bytes: () => new Uint8Array() })
  expect([at(4001, 0), at(4001, 1)]).toEqual([1_000, 10_000])
  expect([at(1013, 0), at(1013, 1)]).toEqual([5_000, 15_000])
  expect([at(4005, 0), at(4005, 1)]).toEqual([30_000, 60_000])
  expect([at(4006, 0), at(4501, 1)]).toEqual([300_000, 600_000])
})

describe('an EventSource as browsers have it', () => {
  /** It can send no header of its own: a fetch that adds the credential stands for a client certificate. */
  const eventSource = (address: string, token: string, lastEventId?: string) => {
    const requests: (string | null)[] = []
    const source = new EventSource(`http://${address}/v1/events`, {
      fetch(input, init) {
        const headers = new Headers(init.headers)
        if (lastEventId !== undefined) headers.set('last-event-id', lastEventId)
        requests.push(headers.get('last-event-id'))
        headers.set('authorization', `Bearer ${token}`)
        return fetch(input, { ...init, headers })
      },
    })
    closers.push(() => source.close())
    const events: { name: string; data: unknown; id: string }[] = []
    for (const name of ['welcome', 'message', 'goaway', 'problem', 'close', 'ping']) {
      source.addEventListener(name, (event) => events.push({ name, data: JSON.parse(event.data), id: event.lastEventId }))
    }
    return { source, requests, events }
  }

  test('comes again after a passing refusal, and is let in then', async () => {
    let backlogged = true
    const { server, admitted } = await lone({ gate: { sessionCount: () => 0, backlogged: () => backlogged } })
    const { source, requests, events } = eventSource(server.address, 'dev:tv-1')
    await expect.poll(() => events.map(({ name }) => name)).toEqual(['goaway', 'close'])
    backlogged = false
    await expect.poll(() => admitted.length, { timeout: 40_000 }).toBe(1)
    expect(requests.length).toBe(2)
    expect(source.readyState).not.toBe(EventSource.CLOSED)
  })

  test('stops for good at a verdict about its credential', async () => {
    const { server } = await lone()
    const { source, requests } = eventSource(server.address, 'junk')
    await expect.poll(() => source.readyState).toBe(EventSource.CLOSED)
    expect(requests).toHaveLength(1)
  })

  test('comes again after a stream that ends, and names the last event', async () => {
    // The first stream begins with the shortest wait.
    const random = { next: () => 0, bytes: (length: number) => new Uint8Array(length) }
    const { server, admitted } = await lone({ random })
    const { requests, events } = eventSource(server.address, 'dev:tv-1')
    await expect.poll(() => admitted.length).toBe(1)
    const transport = admitted[0]?.carrier.transport
    transport?.write(Buffer.from('event: message\nid: m1\ndata: {}\n\n'))
    transport?.close(closeKinds.drain, '')
    await expect.poll(() => events.map(({ name }) => name)).toEqual(['message', 'close'])
    await expect.poll(() => requests, { timeout: 40_000 }).toEqual([null, 'm1'])
  })

  test('one that was sent away for good stops when it comes again', async ({ edge }) => {
    const { deviceAddress } = await edge.start()
    const first = connectForm('event stream', deviceAddress, 'dev:tv-1')
    const { session_id } = await first.next('welcome')
    const close = { closeId: 1, deviceId: 'tv-1', sessionId: String(session_id), reason: CloseReason.DISCONNECTED }
    edge.router().send({ closeSessions: [close] })
    expect(await first.closed).toMatchObject({ code: 4501, lastEventId: 'close-4501' })
    const { source, requests } = eventSource(deviceAddress, 'dev:tv-1', 'close-4501')
    await expect.poll(() => source.readyState).toBe(EventSource.CLOSED)
    expect(requests).toEqual(['close-4501'])
    // A client that begins anew is let in: somebody has restarted it.
    const again = connectForm('event stream', deviceAddress, 'dev:tv-1')
    closers.push(() => again.drop())
    await again.next('welcome')
  })

  test('the last event that it names answers nothing', async ({ edge }) => {
    const { deviceAddress } = await edge.start()
    const { source, events } = eventSource(deviceAddress, 'dev:tv-1')
    await expect.poll(() => events.map(({ name }) => name)).toEqual(['welcome'])
    const router = edge.router()
    const delivery = deliveryOf({ data: { n: 1 } }, { sessionId: edge.plane.rows[0]?.sessionId ?? '' })
    router.send({ deliveries: [delivery] })
    await expect.poll(() => events.at(-1)).toMatchObject({ name: 'message', id: delivery.messageId, data: { data: { n: 1 } } })
    expect(await router.kinds(delivery.deliveryId)).toEqual([OutcomeKind.WRITTEN])
    source.close()
    await expect.poll(() => edge.plane.rows).toEqual([])
    const device = connectForm('event stream', deviceAddress, 'dev:tv-1', { headers: { 'last-event-id': delivery.messageId } })
    closers.push(() => device.drop())
    await device.next('welcome')
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([OutcomeKind.WRITTEN, OutcomeKind.CLOSED_UNACKNOWLEDGED])
    expect(edge.plane.lateAnswers).toEqual([])
  })
})

test('pings are events, and come at the ping interval', async ({ edge }) => {
  const { deviceAddress } = await edge.start({ EDGE_PING_INTERVAL_MS: '10000', EDGE_PONG_TIMEOUT_MS: '5000' })
  const device = connectForm('event stream', deviceAddress, 'dev:tv-1')
  closers.push(() => device.drop())
  await device.next('welcome')
  await edge.pass(31_000)
  await expect.poll(() => device.frames.filter(({ type }) => type === 'ping').length).toBe(3)
  expect(edge.plane.rows).toHaveLength(1)
})
