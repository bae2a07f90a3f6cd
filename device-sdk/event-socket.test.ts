import { expect, test } from 'vitest'
import { connectDevice, type DeviceEvents, type DeviceOptions } from './device.ts'
import { messageFrame, SERVER_TIME } from './testing/scripted-edge.ts'
import { eventOf, scriptedFetch } from './testing/scripted-fetch.ts'
import { SteeredClock, settled } from './testing/steered-clock.ts'

const eventNames = ['welcome', 'goaway', 'disconnected', 'stopped', 'problem'] as const
const welcome = (sessionId = 's1', more: object = {}) =>
  eventOf({
    type: 'welcome',
    session_id: sessionId,
    device_id: 'tv',
    server_time: SERVER_TIME,
    ping_interval_ms: 60_000,
    limits: { frame_bytes: 65_536, ack_ids: 100, unanswered_messages: 64 },
    ...more,
  } as { type: string })

function connected(options: Partial<DeviceOptions> = {}) {
  const clock = new SteeredClock()
  const server = scriptedFetch()
  const handled: string[] = []
  const device = connectDevice({
    url: 'https://push.example/v1/events',
    transport: 'sse',
    token: 'a.b.c',
    onMessage: (message) => void handled.push(message.id),
    clock,
    random: { next: () => 1 },
    fetch: server.fetch,
    ...options,
  })
  const events: { name: keyof DeviceEvents; [field: string]: unknown }[] = []
  for (const name of eventNames) device.on(name, (event) => events.push({ name, ...event }))
  const open = async (count = 1) => {
    const stream = await (await server.nth('GET', count)).stream()
    await stream.say(welcome(`s${count}`))
    return stream
  }
  return { clock, server, device, handled, events, open }
}

test('a device shows its credential in the header, handles what the stream brings, and answers by a request', async () => {
  const { server, device, handled, open } = connected()
  expect(await server.nth('GET', 1)).toMatchObject({
    url: 'https://push.example/v1/events',
    headers: { accept: 'text/event-stream', authorization: 'Bearer a.b.c' },
  })
  const stream = await open()
  expect(device.state).toBe('open')
  await stream.say(`: comment\n\n${eventOf(messageFrame('m1'))}`)
  expect(handled).toEqual(['m1'])
  const post = await server.nth('POST', 1)
  expect(post).toMatchObject({ url: 'https://push.example/v1/answers', headers: { authorization: 'Bearer a.b.c' } })
  expect(post.frames).toEqual([{ type: 'ack', ids: ['m1'] }])
})

test('with acks=none it says so in the address and sends nothing', async () => {
  const { server, handled, open } = connected({ acks: 'none' })
  expect((await server.nth('GET', 1)).url).toBe('https://push.example/v1/events?acks=none')
  const stream = await open()
  await stream.say(eventOf(messageFrame('m1')))
  await stream.say(eventOf({ type: 'ping' }))
  expect(handled).toEqual(['m1'])
  expect(server.posts()).toEqual([])
})

test('a new credential goes beside the stream; once it is accepted, requests show it', async () => {
  let asked = 0
  const { server, clock, events } = connected({ token: () => `t${++asked}` })
  const stream = await (await server.nth('GET', 1)).stream()
  await stream.say(welcome('s1', { ping_interval_ms: 3_600_000, credential_expire_time: SERVER_TIME + 600_000_000 }))
  await clock.advance(8 * 60_000)
  const shown = await server.nth('POST', 1)
  expect(shown).toMatchObject({ headers: { authorization: 'Bearer t1' }, frames: [{ type: 'credential', token: 't2' }] })
  await shown.answer(204)
  await stream.say(eventOf(messageFrame('m1')))
  const before = await server.nth('POST', 2)
  expect(before.headers.authorization).toBe('Bearer t1')
  await before.answer(204)
  await stream.say(eventOf({ type: 'credential_accepted', expire_time: SERVER_TIME + 3_600_000_000 } as { type: string }))
  await clock.advance(10)
  await stream.say(eventOf(messageFrame('m2')))
  expect((await server.nth('POST', 3)).headers.authorization).toBe('Bearer t2')
  expect(events.at(-1)).toEqual({
    name: 'welcome',
    sessionId: 's1',
    deviceId: 'tv',
    serverTime: SERVER_TIME,
    credentialExpireTime: SERVER_TIME + 600_000_000,
  })
})

test('an edge without the stream does not take the credential: the session goes on with the old one', async () => {
  let asked = 0
  const { server, clock, device, events } = connected({ token: () => `t${++asked}` })
  const stream = await (await server.nth('GET', 1)).stream()
  await stream.say(welcome('s1', { ping_interval_ms: 3_600_000, credential_expire_time: SERVER_TIME + 600_000_000 }))
  await clock.advance(8 * 60_000)
  const words = { type: 'error', reason: 'INVALID_FRAME', message: 'no event stream of this device is open at this edge' }
  await (await server.nth('POST', 1)).answer(409, JSON.stringify(words))
  expect(events.at(-1)).toEqual({ name: 'problem', reason: 'INVALID_FRAME', message: words.message })
  await stream.say(eventOf({ type: 'ping' }))
  await clock.advance(60_000)
  expect([device.state, server.posts().length]).toEqual(['open', 1])
})

test('what is answered while a request is under way goes in the next one, together', async () => {
  const { server, clock, open } = connected()
  const stream = await open()
  await stream.say(eventOf(messageFrame('m1')))
  const first = await server.nth('POST', 1)
  for (const id of ['m2', 'm3']) await stream.say(eventOf(messageFrame(id)))
  await clock.advance(10)
  await stream.say(eventOf(messageFrame('m4', { class: 'LATER' })))
  await clock.advance(10)
  expect(server.posts()).toHaveLength(1)
  await first.answer(204)
  const frames = (await server.nth('POST', 2)).frames
  expect(frames.flatMap(({ ids }) => ids)).toEqual(['m2', 'm3', 'm4'])
})

test('an answer is sent until an edge has taken it: after a failure, 503, 429 and a request that hangs', async () => {
  const { server, clock, open } = connected()
  const stream = await open()
  await stream.say(eventOf(messageFrame('m1')))
  await (await server.nth('POST', 1)).fail()
  await clock.advance(499)
  expect(server.posts()).toHaveLength(1)
  await clock.advance(1)
  await (await server.nth('POST', 2)).answer(503, '', { 'retry-after': '3' })
  await clock.advance(3_999)
  expect(server.posts()).toHaveLength(2)
  await clock.advance(1)
  await (await server.nth('POST', 3)).answer(429)
  await clock.advance(2_000)
  const hanging = await server.nth('POST', 4)
  await clock.advance(10_000)
  expect(hanging.aborted).toBe(true)
  await clock.advance(4_000)
  const last = await server.nth('POST', 5)
  expect(last.frames).toEqual([{ type: 'ack', ids: ['m1'] }])
  await last.answer(204)
  await clock.advance(20_000)
  expect(server.posts()).toHaveLength(5)
})

test('answers of a stream that ends before they have arrived go with the next one', async () => {
  const { server, clock, open } = connected()
  const stream = await open()
  await stream.say(eventOf(messageFrame('m1')))
  const lost = await server.nth('POST', 1)
  // A frame that comes proves nothing here: it says nothing of the request.
  await stream.say(eventOf({ type: 'ping' }))
  await stream.end()
  expect(lost.aborted).toBe(true)
  await clock.advance(1_000)
  await open(2)
  const again = await server.nth('POST', 2)
  expect(again.frames).toEqual([{ type: 'ack', ids: ['m1'] }])
  await again.answer(204)
  await (await server.nth('GET', 2)).fail()
  expect(server.posts()).toHaveLength(2)
})

test('answers that have arrived are not sent again by the next stream', async () => {
  const { server, clock, open } = connected()
  const stream = await open()
  await stream.say(eventOf(messageFrame('m1')))
  await (await server.nth('POST', 1)).answer(204)
  await stream.end()
  await clock.advance(1_000)
  await open(2)
  await settled()
  expect(server.posts()).toHaveLength(1)
})

test('among frames that are refused together the good ones arrive, and the app hears of the bad one', async () => {
  const bad = JSON.stringify({ type: 'error', reason: 'INVALID_FRAME', message: 'nack: reason is too long' })
  const { server, clock, events, open } = connected({
    onMessage: (message) => {
      if (message.id !== 'm1') throw new Error(message.id)
    },
  })
  const stream = await open()
  await stream.say(eventOf(messageFrame('m1')))
  const first = await server.nth('POST', 1)
  await stream.say(eventOf(messageFrame('m2')) + eventOf(messageFrame('m3')))
  await clock.advance(10)
  await first.answer(204)
  const both = await server.nth('POST', 2)
  expect(both.frames).toHaveLength(2)
  await both.answer(400, bad)
  const alone = await server.nth('POST', 3)
  expect(alone.frames).toMatchObject([{ type: 'nack', id: 'm2' }])
  await alone.answer(400, bad)
  const other = await server.nth('POST', 4)
  expect(other.frames).toMatchObject([{ type: 'nack', id: 'm3' }])
  await other.answer(204)
  expect(events.filter(({ name }) => name === 'problem')).toEqual([
    { name: 'problem', reason: 'INVALID_FRAME', message: 'nack: reason is too long' },
  ])
})

test.each([
  ['4001 on the stream', 4001, 1_000],
  ['1013 on the stream', 1013, 15_000],
  ['4005 on the stream', 4005, 60_000],
] as const)('%s is followed as on a WebSocket', async (_name, code, retryInMs) => {
  const { server, events, open } = connected()
  const stream = await open()
  await stream.say(`retry: 1\n${eventOf({ type: 'close', code, reason: 'words' } as { type: string })}`)
  // Also where a proxy keeps the connection to the device.
  expect(server.streams()[0]?.aborted).toBe(true)
  expect(events.at(-1)).toEqual({ name: 'disconnected', code, reason: 'words', retryInMs })
})

test('final: 4501 on the stream, and 401 with its code or without', async () => {
  const disconnected = connected()
  const stream = await disconnected.open()
  await stream.say(eventOf({ type: 'close', code: 4501, reason: 'bye' } as { type: string }))
  expect(disconnected.events.at(-1)).toEqual({ name: 'stopped', code: 4501, reason: 'bye' })
  expect(disconnected.device.state).toBe('stopped')
  const refused = connected()
  await (await refused.server.nth('GET', 1)).answer(401, '{"type":"close","code":4500,"reason":"the token does not hold"}')
  expect(refused.events.at(-1)).toEqual({ name: 'stopped', code: 4500, reason: 'the token does not hold' })
  const silent = connected()
  await (await silent.server.nth('GET', 1)).answer(401, '<html>')
  expect(silent.events.at(-1)).toEqual({ name: 'stopped', code: 4500, reason: 'HTTP 401' })
})

test('not final: 401 because the token has expired, 503 of a proxy, an answer that is no stream, and no answer', async () => {
  let tokens = 0
  const { server, clock, events } = connected({ token: () => `t${++tokens}` })
  await (await server.nth('GET', 1)).answer(401, '{"type":"close","code":4004,"reason":"the token has expired"}')
  expect(events.at(-1)).toEqual({ name: 'disconnected', code: 4004, reason: 'the token has expired', retryInMs: 1_000 })
  await clock.advance(1_000)
  expect((await server.nth('GET', 2)).headers.authorization).toBe('Bearer t2')
  await (await server.nth('GET', 2)).answer(503)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 1013, reason: 'HTTP 503' })
  await clock.advance(15_000)
  await (await server.nth('GET', 3)).answer(200, '<html>', { 'content-type': 'text/html' })
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 1006, reason: 'the answer is no event stream' })
  await clock.advance(4_000)
  await (await server.nth('GET', 4)).fail()
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 1006, reason: 'fetch failed' })
})

test('answers that are refused for the credential end the stream, and the next attempt brings them with a new one', async () => {
  let tokens = 0
  const { server, clock, events, open } = connected({ token: () => `t${++tokens}` })
  const stream = await open()
  await stream.say(eventOf(messageFrame('m1')))
  await (await server.nth('POST', 1)).answer(401)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 4004 })
  expect(server.streams()[0]?.aborted).toBe(true)
  await clock.advance(1_000)
  await open(2)
  const again = await server.nth('POST', 2)
  expect([again.headers.authorization, again.frames]).toEqual(['Bearer t2', [{ type: 'ack', ids: ['m1'] }]])
})

test('make before break: in its slot it opens another stream, then lets go of the old one', async () => {
  const { server, clock, device, open } = connected()
  const stream = await open()
  await stream.say(eventOf({ type: 'goaway', reason: 'drain', reconnect_after_ms: 5_000 } as { type: string }))
  await clock.advance(5_000)
  expect(server.streams()[0]?.aborted).toBe(false)
  await open(2)
  await settled()
  expect(server.streams().map(({ aborted }) => aborted)).toEqual([true, false])
  expect(device.state).toBe('open')
})

test('a stream that is silent for twice the ping interval is dead; pings keep it alive and ask for no request', async () => {
  const { server, clock, events, open } = connected()
  const stream = await open()
  for (let count = 0; count < 5; count++) {
    await clock.advance(59_000)
    await stream.say(eventOf({ type: 'ping' }))
  }
  expect(events.filter(({ name }) => name === 'disconnected')).toEqual([])
  await clock.advance(125_000)
  expect(events.filter(({ name }) => name === 'disconnected')).toMatchObject([{ code: 1006 }])
  expect(server.streams()[0]?.aborted).toBe(true)
  expect(server.posts()).toEqual([])
})

test('closing sends what is owed first; when that cannot be had in time, it ends all the same', async () => {
  const good = connected()
  const stream = await good.open()
  await stream.say(eventOf(messageFrame('m1')))
  const closing = good.device.close()
  await (await good.server.nth('POST', 1)).answer(204)
  await closing
  expect(good.server.streams()[0]?.aborted).toBe(true)
  expect(good.clock.pendingTimers).toBe(0)

  const bad = connected()
  const other = await bad.open()
  await other.say(eventOf(messageFrame('m1')))
  const hanging = await bad.server.nth('POST', 1)
  const ended = bad.device.close()
  await bad.clock.advance(1_000)
  await ended
  expect([hanging.aborted, bad.clock.pendingTimers]).toEqual([true, 0])
})

test('an address or a form that an event stream cannot have is said at once', () => {
  expect(() => connected({ url: 'wss://push.example/v1/connect' })).toThrow('expected https:// or http://')
  expect(() => connected({ protocol: 'protobuf' })).toThrow('JSON only')
})
