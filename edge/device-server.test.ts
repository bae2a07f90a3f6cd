import { describe, expect } from 'vitest'
import { WebSocket } from 'ws'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import type { Identity } from './auth/identity.ts'
import { type EdgeFixture, test } from './testing/edge-fixture.ts'
import { serveAlone } from './testing/lone-port.ts'
import { handshakeText, rawClient } from './testing/raw-client.ts'
import { type FrameOptions, wireFrame } from './testing/wire-frames.ts'

const addressOf = (edge: EdgeFixture) => new URL(edge.url()).host

/** One line for each refusal, and no credential in any line. */
const expectRefused = (edge: EdgeFixture, reason: string, answer: number) => {
  expect(edge.log.withPhrase('device refused')).toMatchObject([{ level: 'info', facts: { reason, answer } }])
  expect(JSON.stringify(edge.log.entries)).not.toMatch(/dev:|Bearer|push\.bearer|topsecret/)
}

describe('a handshake that is refused gets its status, one log line, and no session', () => {
  const cases: [what: string, text: string, status: number, reason: string][] = [
    ['no credentials', handshakeText({ Authorization: undefined }), 401, 'unauthenticated'],
    ['credentials of another kind', handshakeText({ Authorization: 'Basic topsecret' }), 401, 'unauthenticated'],
    ['credentials that do not hold', handshakeText({ Authorization: 'Bearer topsecret' }), 401, 'unauthenticated'],
    ['a wrong path', handshakeText({}, '/v2/connect'), 404, 'wrong_path'],
    ['a path below', handshakeText({}, '/v1/connect/more?token=topsecret'), 404, 'wrong_path'],
    ['a wrong method', handshakeText({}, '/v1/connect', 'POST'), 405, 'wrong_method'],
    ['no subprotocol', handshakeText({ 'Sec-WebSocket-Protocol': undefined }), 400, 'wrong_subprotocol'],
    ['another subprotocol', handshakeText({ 'Sec-WebSocket-Protocol': 'push.v2.json, push.v1.cbor' }), 400, 'wrong_subprotocol'],
    ['an origin that is not allowed', handshakeText({ Origin: 'https://evil.example' }), 403, 'wrong_origin'],
    [
      'an origin that only begins like an allowed one',
      handshakeText({ Origin: 'https://good.example.evil' }),
      403,
      'wrong_origin',
    ],
    ['a query that is not known', handshakeText({}, '/v1/connect?acks=some'), 400, 'wrong_query'],
    ['no upgrade', handshakeText({ Upgrade: undefined, Connection: 'close' }), 426, 'not_websocket'],
    ['an upgrade to something else', handshakeText({ Upgrade: 'h2c' }), 426, 'not_websocket'],
    ['no WebSocket key', handshakeText({ 'Sec-WebSocket-Key': undefined }), 400, 'malformed'],
    ['a WebSocket version of another time', handshakeText({ 'Sec-WebSocket-Version': '7' }), 426, 'wrong_version'],
    ['no HTTP at all', 'hello\r\n\r\n', 400, 'malformed'],
    ['headers without end', handshakeText({ 'X-Long': 'x'.repeat(20_000) }), 431, 'malformed'],
  ]
  test.for(cases)('%s', async ([_what, text, status, reason], { edge }) => {
    await edge.start({ EDGE_ALLOWED_ORIGINS: 'https://good.example' })
    const client = rawClient(addressOf(edge))
    client.write(text)
    expect(await client.status()).toBe(status)
    await client.closed
    expectRefused(edge, reason, status)
    expect(await edge.metric('push_edge_refusals_total', { reason })).toBe(1)
    expect(edge.plane.registers).toEqual([])
  })

  test('the answers say what they have to', async ({ edge }) => {
    await edge.start()
    const answerTo = async (text: string) => {
      const client = rawClient(addressOf(edge))
      client.write(text)
      await client.closed
      return client.received().toString().toLowerCase()
    }
    expect(await answerTo(handshakeText({ Authorization: undefined }))).toContain('www-authenticate: bearer')
    expect(await answerTo(handshakeText({}, '/v1/connect', 'PUT'))).toContain('allow: get')
    expect(await answerTo(handshakeText({ Upgrade: undefined, Connection: 'close' }))).toContain('upgrade: websocket')
  })
})

test('an origin that is allowed comes in', async ({ edge }) => {
  await edge.start({ EDGE_ALLOWED_ORIGINS: 'https://good.example' })
  const client = rawClient(addressOf(edge))
  client.write(handshakeText({ Origin: 'https://good.example' }))
  expect(await client.status()).toBe(101)
  client.end()
})

const browserHandshake = handshakeText({
  Authorization: undefined,
  'Sec-WebSocket-Protocol': 'push.v1.json, push.bearer.ZGV2OnR2',
})
const judging = (verdict: 'expired' | 'unavailable'): Identity => ({
  authenticate: async () => ({ ok: false, verdict, detail: verdict }),
})

test.for([
  ['too many register at once', { gate: { sessionCount: () => 0, backlogged: () => true } }, 'backlog', 503, 1013],
  ['the credential has expired', { identity: judging('expired') }, 'expired', 401, 4004],
  ['nobody can be identified now', { identity: judging('unavailable') }, 'identity_unavailable', 503, 1013],
] as const)('%s: a status for clients with a header, a close code for browsers', async ([_what, more, reason, status, code]) => {
  const header = await serveAlone(more)
  header.client.write(handshakeText())
  expect(await header.client.status()).toBe(status)
  expect(header.refusals()).toEqual([[reason, status]])
  const browser = await serveAlone(more)
  browser.client.write(browserHandshake)
  expect(await browser.client.closeCode()).toBe(code)
  expect(browser.refusals()).toEqual([[reason, code]])
  for (const { close } of [header, browser]) await close()
})

test('when too many are being told why, one more gets plain HTTP', async () => {
  const { close, client, refusals } = await serveAlone({ identity: judging('expired') }, { refusedSocketsMax: 0 })
  client.write(browserHandshake)
  expect(await client.status()).toBe(401)
  expect(refusals()).toEqual([['expired', 401]])
  await close()
})

describe('a browser, which cannot read a refused handshake, is let in only to be told', () => {
  const browser = (edge: EdgeFixture, plain: string) => {
    const webSocket = new WebSocket(`ws://${addressOf(edge)}/v1/connect`, [
      'push.v1.json',
      `push.bearer.${Buffer.from(plain).toString('base64url')}`,
    ])
    const frames: unknown[] = []
    webSocket.on('message', (data) => frames.push(JSON.parse(String(data))))
    const closed = new Promise<number>((resolve) => webSocket.on('close', (code) => resolve(code)))
    return { webSocket, frames, closed }
  }

  test('a credential that holds opens a session, on the plain subprotocol', async ({ edge }) => {
    await edge.start()
    const { webSocket, frames } = browser(edge, 'dev:tv-1/anna')
    await expect.poll(() => frames.length).toBe(1)
    expect(webSocket.protocol).toBe('push.v1.json')
    expect(frames[0]).toMatchObject({ type: 'welcome', device_id: 'tv-1' })
    expect(edge.plane.rows).toMatchObject([{ accountId: 'anna' }])
    webSocket.terminate()
  })

  test('a credential that does not hold: error and 4500', async ({ edge }) => {
    await edge.start()
    const { frames, closed } = browser(edge, 'topsecret')
    expect(await closed).toBe(4500)
    expect(frames).toMatchObject([{ type: 'error', reason: 'UNAUTHENTICATED' }])
    expectRefused(edge, 'unauthenticated', 4500)
    expect(edge.plane.registers).toEqual([])
  })

  test('a full edge: goaway and 1013', async ({ edge }) => {
    await edge.start({ EDGE_CONNECTION_LIMIT: '1', EDGE_LISTENER_CLOSE_PERCENT: '100' })
    await edge.open('dev:tv-1')
    const { frames, closed } = browser(edge, 'dev:tv-2')
    expect(await closed).toBe(1013)
    expect(frames).toMatchObject([{ type: 'goaway', reason: 'overload', reconnect_after_ms: expect.any(Number) }])
  })
})

test('a full edge answers 503 with a Retry-After that differs from device to device', async ({ edge }) => {
  await edge.start({ EDGE_CONNECTION_LIMIT: '1', EDGE_LISTENER_CLOSE_PERCENT: '100' })
  const first = await edge.open('dev:tv-1')
  const waits = new Set<string>()
  for (let index = 0; index < 12; index++) {
    const client = rawClient(addressOf(edge))
    client.write(handshakeText())
    expect(await client.status()).toBe(503)
    await client.closed
    waits.add(/retry-after: (\d+)/i.exec(client.received().toString())?.[1] ?? '')
  }
  expect(waits.size).toBeGreaterThan(2)
  first.webSocket.close()
  await expect.poll(() => edge.plane.rows.length).toBe(0)
  await edge.open('dev:tv-3')
})

test('limits change while the edge runs: the next device is judged by them, metrics show them, sessions go on', async ({
  edge,
}) => {
  await edge.start({ EDGE_CONNECTION_LIMIT: '1', EDGE_LISTENER_CLOSE_PERCENT: '100' })
  const first = await edge.open('dev:tv-1')
  const refused = rawClient(addressOf(edge))
  refused.write(handshakeText())
  expect(await refused.status()).toBe(503)
  edge.reload({ EDGE_CONNECTION_LIMIT: '2', EDGE_ADDRESS_CONNECTION_LIMIT: '7', EDGE_REGISTER_RATE_PER_SECOND: '9' })
  await edge.open('dev:tv-2')
  expect(await edge.metric('push_edge_limit', { limit: 'connection_limit' })).toBe(2)
  expect(await edge.metric('push_edge_limit', { limit: 'address_connection_limit' })).toBe(7)
  expect(await edge.metric('push_edge_limit', { limit: 'register_rate_per_second' })).toBe(9)
  // The lease says so too, from its next renewal on.
  await edge.pass(10_000)
  expect(edge.plane.renewals.at(-1)?.connectionLimit).toBe(2)
  edge.reload({ EDGE_CONNECTION_LIMIT: '0' })
  expect(edge.log.withPhrase('settings were not reloaded; those in force stay')).toHaveLength(1)
  expect(await edge.metric('push_edge_limit', { limit: 'connection_limit' })).toBe(2)
  expect(first.webSocket.readyState).toBe(WebSocket.OPEN)
})

test('health is told at two paths, by GET only', async ({ edge }) => {
  await edge.start()
  const status = async (path: string, method = 'GET') => (await fetch(edge.url(path), { method })).status
  expect(await status('/healthz')).toBe(200)
  expect(await status('/readyz')).toBe(200)
  expect(await status('/readyz', 'POST')).toBe(405)
  expect(await status('/other')).toBe(404)
})

describe('a client that breaks the WebSocket protocol', () => {
  const open = async (edge: EdgeFixture) => {
    await edge.start()
    const client = rawClient(addressOf(edge))
    client.write(handshakeText())
    await expect.poll(() => client.received().includes('"welcome"')).toBe(true)
    return client
  }
  const text = (payload: string, options: FrameOptions = {}) => wireFrame(1, payload, options)
  const cases: [what: string, frames: () => Buffer[], code: number][] = [
    ['unmasked frames', () => [text('{"type":"ping"}', { mask: undefined })], 1002],
    ['junk instead of frames', () => [Buffer.from('GET / HTTP/1.1\r\n\r\n')], 1002],
    ['a reserved opcode', () => [wireFrame(3, Buffer.alloc(0))], 1002],
    ['a frame over 64 KiB', () => [Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0])], 1009],
    [
      'fragments over 64 KiB together',
      () => [text('x'.repeat(40_000), { fin: false }), wireFrame(0, Buffer.alloc(40_000))],
      1009,
    ],
    [
      'endless small fragments',
      () => [text('x', { fin: false }), ...Array.from({ length: 200 }, () => wireFrame(0, Buffer.from('x'), { fin: false }))],
      1008,
    ],
    ['text that is not UTF-8', () => [wireFrame(1, Buffer.from([0xff, 0xfe]))], 1007],
  ]
  test.for(cases)('%s', async ([_what, frames, code], { edge }) => {
    const client = await open(edge)
    for (const frame of frames()) client.write(frame)
    expect(await client.closeCode()).toBe(code)
    client.end()
    await expect.poll(() => edge.plane.rows.length).toBe(0)
    expect(edge.log.withPhrase('a device broke the WebSocket protocol')).toMatchObject([{ facts: { device_id: 'tv-1' } }])
  })

  test('binary frames are answered by error, and by 4502 when they are too many', async ({ edge }) => {
    const client = await open(edge)
    for (let index = 0; index < 10; index++) client.write(wireFrame(2, Buffer.from([0, 1, 2, 255])))
    expect(await client.closeCode()).toBe(4502)
    expect(
      client
        .received()
        .toString('latin1')
        .match(/INVALID_FRAME/g),
    ).toHaveLength(10)
    expect(await metricValue(edge.metrics, 'push_edge_bad_frames_total', { reason: 'INVALID_FRAME' })).toBe(10)
    client.end()
  })
})
