import { expect, test } from 'vitest'
import { connectDevice, type DeviceEvents, type DeviceOptions } from './device.ts'
import type { DeviceMessage } from './message.ts'
import { ScriptedEdge, SERVER_TIME } from './testing/scripted-edge.ts'
import { SteeredClock, settled } from './testing/steered-clock.ts'

const eventNames = ['welcome', 'message', 'goaway', 'disconnected', 'stopped', 'problem'] as const

function connected(options: Partial<DeviceOptions> = {}, random = 1) {
  const clock = new SteeredClock()
  const edge = new ScriptedEdge()
  const handled: string[] = []
  const device = connectDevice({
    url: 'ws://127.0.0.1:7480/v1/connect',
    token: 'dev:tv',
    onMessage: (message) => void handled.push(message.id),
    clock,
    random: { next: () => random },
    openSocket: edge.openSocket,
    ...options,
  })
  const events: { name: keyof DeviceEvents; [field: string]: unknown }[] = []
  for (const name of eventNames) device.on(name, (event) => events.push({ name, ...event }))
  return { clock, edge, device, handled, events }
}

/** A handler whose calls end when the test says so. */
function held() {
  const ends = new Map<string, () => void>()
  const onMessage = (message: DeviceMessage) => new Promise<void>((resolve) => void ends.set(message.id, resolve))
  const finish = async (id: string) => {
    ends.get(id)?.()
    await settled()
  }
  return { onMessage, finish, ends }
}

test('a device connects with its credential as a subprotocol, tells of the session, handles and acknowledges', async () => {
  const { edge, device, handled, events } = connected()
  const socket = await edge.newest()
  expect(socket.url).toBe('ws://127.0.0.1:7480/v1/connect')
  expect(socket.protocols).toEqual(['push.v1.json', `push.bearer.${Buffer.from('dev:tv').toString('base64url')}`])
  expect(device.state).toBe('connecting')
  await socket.welcome()
  expect(device.state).toBe('open')
  await socket.message('m')
  expect(handled).toEqual(['m'])
  expect(socket.sent).toEqual([{ type: 'ack', ids: ['m'] }])
  expect(events).toEqual([
    { name: 'welcome', sessionId: 's1', deviceId: 'tv', serverTime: SERVER_TIME },
    { name: 'message', id: 'm', outcome: 'handled' },
  ])
  expect(device.counts).toMatchObject({ handled: 1, sessions: 1, problems: 0 })
})

test('answers that are due together go in one frame', async () => {
  const { onMessage, ends } = held()
  const { edge } = connected({ onMessage: { USER: onMessage, DIAGNOSTIC: onMessage } })
  const socket = await edge.newest()
  await socket.welcome()
  await socket.message('a')
  await socket.message('b', { class: 'DIAGNOSTIC' })
  for (const end of ends.values()) end()
  await settled()
  expect(socket.sent).toEqual([{ type: 'ack', ids: ['a', 'b'] }])
})

test('answers that follow each other closely wait for one another, a little', async () => {
  const { edge, clock } = connected()
  const socket = await edge.newest()
  await socket.welcome()
  for (const id of ['a', 'b', 'c']) await socket.message(id)
  expect(socket.sent).toEqual([{ type: 'ack', ids: ['a'] }])
  await clock.advance(10)
  expect(socket.sent).toEqual([
    { type: 'ack', ids: ['a'] },
    { type: 'ack', ids: ['b', 'c'] },
  ])
  await clock.advance(10)
  await socket.message('d')
  expect(socket.sent.at(-1)).toEqual({ type: 'ack', ids: ['d'] })
})

test('a device with acks=none says so in its address and answers nothing', async () => {
  const { edge, handled } = connected({ acks: 'none' })
  const socket = await edge.newest()
  expect(socket.url).toBe('ws://127.0.0.1:7480/v1/connect?acks=none')
  await socket.welcome()
  await socket.message('m')
  await socket.message('m')
  expect(handled).toEqual(['m'])
  expect(socket.sent).toEqual([])
})

test('expiry is judged by the server’s clock, as told at welcome and run on by the monotonic one', async () => {
  const { edge, clock, handled } = connected()
  const socket = await edge.newest()
  await socket.welcome()
  await clock.advance(10_000)
  await socket.message('late', { expire_time: SERVER_TIME + 9_999_999 })
  await socket.message('in time', { expire_time: SERVER_TIME + 10_000_000 })
  expect(handled).toEqual(['in time'])
})

test('answers that became due while there was no session go to the next one', async () => {
  const { onMessage, finish } = held()
  const { edge, clock, device, events } = connected({ onMessage })
  const first = await edge.newest()
  await first.welcome()
  await first.message('m')
  await first.end(1006)
  expect(device.state).toBe('waiting')
  expect(events.at(-1)).toEqual({ name: 'disconnected', code: 1006, reason: '', retryInMs: 1_000 })
  await finish('m')
  await clock.advance(1_000)
  const second = await edge.newest()
  expect(second).not.toBe(first)
  expect(second.sent).toEqual([])
  await second.welcome()
  await settled()
  expect(second.sent).toEqual([{ type: 'ack', ids: ['m'] }])
})

test('a result that became due while there was no session goes to the next one; the work is done once', async () => {
  const ends: ((value: unknown) => void)[] = []
  const { edge, clock } = connected({ onMessage: () => new Promise<unknown>((resolve) => void ends.push(resolve)) })
  const first = await edge.newest()
  await first.welcome()
  await first.message('m', { confirm: 'RESULT' })
  expect(first.sent).toEqual([{ type: 'ack', ids: ['m'] }])
  await first.say({ type: 'pong' })
  await first.end(1006)
  ends[0]?.({ log: 'all well' })
  await clock.advance(1_000)
  const second = await edge.newest()
  await second.welcome()
  await settled()
  const result = { type: 'result', id: 'm', status: 'ok', data: { log: 'all well' } }
  expect(second.sent).toEqual([result])
  // It may have gone into a dead connection as well.
  await second.end(1006)
  await clock.advance(30_000)
  const third = await edge.newest()
  await third.welcome()
  await settled()
  expect(third.sent).toEqual([result])
  await third.message('m', { confirm: 'RESULT', redelivered: true })
  await clock.advance(10)
  expect(third.sent).toEqual([result, result])
  expect(ends).toHaveLength(1)
})

test('a repeat on a new session is acknowledged there and handled no second time', async () => {
  const { edge, clock, handled } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.message('m')
  // Something came after the answer, so the edge is taken to have read it.
  await first.say({ type: 'pong' })
  await first.end(1011)
  await clock.advance(1_000)
  const second = await edge.newest()
  await second.welcome()
  expect(second.sent).toEqual([])
  await second.message('m', { redelivered: true })
  expect(handled).toEqual(['m'])
  expect(second.sent).toEqual([{ type: 'ack', ids: ['m'] }])
})

test('an answer that went into a dead connection is sent again on the next', async () => {
  const { edge, clock } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.message('m')
  expect(first.sent).toHaveLength(1)
  await first.end(1006)
  await clock.advance(1_000)
  const second = await edge.newest()
  await second.welcome()
  expect(second.sent).toEqual([{ type: 'ack', ids: ['m'] }])
})

test('a silent connection is probed, detached and replaced; what it still brings is ignored', async () => {
  const { edge, clock, handled, events } = connected()
  const first = await edge.newest()
  first.silentAtClose = true
  await first.welcome({ ping_interval_ms: 10_000 })
  await clock.advance(10_000)
  expect(first.sent).toEqual([{ type: 'ping' }])
  await clock.advance(10_000)
  expect(first.closedByDevice).toBe(true)
  expect(events.at(-1)).toEqual({
    name: 'disconnected',
    code: 1006,
    reason: 'nothing heard for twice the ping interval',
    retryInMs: 1_000,
  })
  await first.message('ghost')
  await first.end(4500, 'too late')
  await clock.advance(1_000)
  const second = await edge.newest()
  await second.welcome()
  expect(edge.sockets).toHaveLength(2)
  expect(handled).toEqual([])
})

test('an answered probe keeps the connection', async () => {
  const { edge, clock, device } = connected()
  const socket = await edge.newest()
  await socket.welcome({ ping_interval_ms: 10_000 })
  await clock.advance(15_000)
  await socket.say({ type: 'pong' })
  await clock.advance(9_999)
  expect(device.state).toBe('open')
  expect(socket.sent).toEqual([{ type: 'ping' }])
})

test('the edge’s pings are answered with their data', async () => {
  const { edge } = connected()
  const socket = await edge.newest()
  await socket.welcome()
  await socket.say({ type: 'ping', data: 'x' })
  await socket.say({ type: 'ping' })
  expect(socket.sent).toEqual([{ type: 'pong', data: 'x' }, { type: 'pong' }])
})

test('no welcome in time is a failed attempt', async () => {
  const { edge, clock, events } = connected()
  const socket = await edge.newest()
  await clock.advance(15_000)
  expect(socket.closedByDevice).toBe(true)
  expect(events).toEqual([{ name: 'disconnected', code: 1006, reason: 'no welcome in time', retryInMs: 1_000 }])
})

test('a token that fails, or does not come, is a failed attempt; each attempt asks anew', async () => {
  const tokens: (() => Promise<string>)[] = [
    () => Promise.reject(new Error('issuer away')),
    () => new Promise<string>(() => {}),
    () => Promise.resolve('third'),
  ]
  const { edge, clock, events } = connected({ token: () => tokens.shift()?.() ?? 'later' })
  await clock.advance(0)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', reason: 'no token: issuer away', retryInMs: 1_000 })
  await clock.advance(1_000 + 30_000)
  expect(events.at(-1)).toMatchObject({ reason: 'no token: none came within 30000 ms', retryInMs: 2_000 })
  await clock.advance(2_000)
  expect((await edge.newest()).protocols[1]).toBe('push.bearer.third')
})

test('a socket that cannot even be opened is a failed attempt', async () => {
  const { events } = connected({
    openSocket: () => {
      throw new Error('no network')
    },
  })
  await settled()
  expect(events).toEqual([{ name: 'disconnected', code: 1006, reason: 'no network', retryInMs: 1_000 }])
})

test('make before break: the new session opens in the slot, and only then does the device close the old one', async () => {
  const { edge, clock, device, events } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(20_000)
  expect(events.at(-1)).toEqual({ name: 'goaway', reason: 'lifetime', reconnectAfterMs: 20_000 })
  await clock.advance(19_999)
  expect(edge.sockets).toHaveLength(1)
  await first.message('still here')
  await clock.advance(1)
  const second = await edge.newest()
  expect(edge.sockets).toHaveLength(2)
  expect(first.closedByDevice).toBe(false)
  expect(device.state).toBe('open')
  await second.welcome({ session_id: 's2' })
  expect(first.closedByDevice).toBe(true)
  expect(first.sent).toEqual([{ type: 'ack', ids: ['still here'] }])
  expect(second.sent).toEqual([])
  expect(events.map((event) => event.name)).not.toContain('disconnected')
})

test('a handler that is at work during the move answers on the session that brought its message', async () => {
  const { onMessage, finish } = held()
  const { edge, clock } = connected({ onMessage })
  const first = await edge.newest()
  await first.welcome()
  await first.message('m')
  await first.goaway(0)
  await clock.advance(0)
  const second = await edge.newest()
  await second.welcome()
  expect(first.closedByDevice).toBe(false)
  await finish('m')
  expect(first.sent).toEqual([{ type: 'ack', ids: ['m'] }])
  expect(first.closedByDevice).toBe(true)
  expect(second.sent).toEqual([])
})

test('a handler that takes longer than the linger answers on the new session', async () => {
  const { onMessage, finish } = held()
  const { edge, clock } = connected({ onMessage })
  const first = await edge.newest()
  await first.welcome()
  await first.message('m')
  await first.goaway(0)
  await clock.advance(0)
  const second = await edge.newest()
  await second.welcome()
  await clock.advance(4_999)
  expect(first.closedByDevice).toBe(false)
  await clock.advance(1)
  expect(first.closedByDevice).toBe(true)
  await finish('m')
  expect(first.sent).toEqual([])
  expect(second.sent).toEqual([{ type: 'ack', ids: ['m'] }])
})

test('a message that is repeated on the new session while its handler works is answered there', async () => {
  const { onMessage, finish } = held()
  const { edge, clock, device } = connected({ onMessage })
  const first = await edge.newest()
  await first.welcome()
  await first.message('m')
  await first.goaway(0)
  await clock.advance(0)
  const second = await edge.newest()
  await second.welcome()
  await second.message('m', { redelivered: true })
  await finish('m')
  expect(second.sent).toEqual([{ type: 'ack', ids: ['m'] }])
  expect(device.counts).toMatchObject({ handled: 1, repeated: 1 })
})

test('when the new session does not open, the old one goes on and the device tries again', async () => {
  const { edge, clock, device, events, handled } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(0)
  await clock.advance(0)
  await (await edge.newest()).end(1013, 'full')
  expect(events.at(-1)).toMatchObject({ name: 'problem', reason: 'RECONNECT_FAILED' })
  expect(device.state).toBe('open')
  await first.message('m')
  expect(handled).toEqual(['m'])
  await clock.advance(15_000)
  const third = await edge.newest()
  expect(edge.sockets).toHaveLength(3)
  await third.welcome()
  expect(first.closedByDevice).toBe(true)
})

test('a second goaway while the new session is on its way opens no third one, then or later', async () => {
  const { edge, clock } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(0)
  await clock.advance(0)
  const second = await edge.newest()
  await first.goaway(0, { reason: 'drain' })
  await clock.advance(0)
  await first.goaway(60_000, { reason: 'drain' })
  await second.welcome()
  await clock.advance(120_000)
  expect(edge.sockets).toHaveLength(2)
})

test('a message that found no place is not waited for when the old session is left', async () => {
  const { onMessage, finish } = held()
  const { edge, clock, device } = connected({ onMessage, bounds: { queuedMax: 1 } })
  const first = await edge.newest()
  await first.welcome()
  for (const id of ['running', 'queued', 'one too many']) await first.message(id)
  expect(device.counts.overflowed).toBe(1)
  await first.goaway(0)
  await clock.advance(0)
  await (await edge.newest()).welcome()
  await finish('running')
  expect(first.closedByDevice).toBe(false)
  await finish('queued')
  expect(first.closedByDevice).toBe(true)
})

test('an edge that closes before the slot is left alone until the slot begins', async () => {
  const { edge, clock, events } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(60_000, { reason: 'drain' })
  await clock.advance(10_000)
  await first.end(4001)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 4001, retryInMs: 50_000 })
  await clock.advance(49_999)
  expect(edge.sockets).toHaveLength(1)
  await clock.advance(1)
  expect(edge.sockets).toHaveLength(2)
})

test('an overloaded edge that refuses with goaway and 1013 is asked again in its slot', async () => {
  const { edge, events } = connected()
  const socket = await edge.newest()
  await socket.goaway(45_000, { reason: 'overload' })
  await socket.end(1013)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 1013, retryInMs: 45_000 })
})

test('a goaway may name another endpoint, for the next attempt only', async () => {
  const { edge, clock } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(0, { endpoint: 'ws://127.0.0.2:7480/v1/connect' })
  await clock.advance(0)
  const second = await edge.newest()
  expect(second.url).toBe('ws://127.0.0.2:7480/v1/connect')
  await second.end(1006)
  await clock.advance(1_000)
  expect((await edge.newest()).url).toBe('ws://127.0.0.1:7480/v1/connect')
})

test('an endpoint in plain text is refused by a device that was set up with TLS', async () => {
  const { edge, clock, events } = connected({ url: 'wss://push.example/v1/connect' })
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(0, { endpoint: 'ws://push.example/v1/connect' })
  await clock.advance(0)
  expect((await edge.newest()).url).toBe('wss://push.example/v1/connect')
  expect(events.map((event) => event.reason)).toContain('ENDPOINT_REFUSED')
})

test('superseded by a session of another process: the device comes back after 30 to 60 s', async () => {
  const { edge, events } = connected({}, 0)
  const socket = await edge.newest()
  await socket.welcome()
  await socket.end(4005)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 4005, retryInMs: 30_000 })
})

test('superseded by the session that this process has opened itself: nothing to come back for', async () => {
  const { edge, clock, device, events } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(0)
  await clock.advance(0)
  const second = await edge.newest()
  await first.end(4005)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 4005, retryInMs: 0 })
  await second.welcome()
  await clock.advance(120_000)
  expect(edge.sockets).toHaveLength(2)
  expect(device.state).toBe('open')
})

test('superseded by an attempt of its own that came to nothing: the device comes back as after any other end', async () => {
  const { edge, clock, events } = connected({}, 0.5)
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(0)
  await clock.advance(0)
  // Its edge has registered it, and it breaks before it hears so.
  await (await edge.newest()).end(1006)
  await first.end(4005)
  const last = events.at(-1)
  expect(last).toMatchObject({ name: 'disconnected', code: 4005 })
  expect(last?.retryInMs).toBeLessThanOrEqual(2_000)
  await clock.advance(2_000)
  // The row of the broken attempt may even come after the one of this.
  await (await edge.newest()).end(4005)
  expect(edge.sockets).toHaveLength(3)
  await clock.advance(4_000)
  expect(edge.sockets).toHaveLength(4)
})

test('an attempt that failed long ago excuses nothing', async () => {
  const { edge, clock, events } = connected({}, 0)
  const broken = await edge.newest()
  await broken.end(1006)
  await clock.advance(0)
  const second = await edge.newest()
  expect(edge.sockets).toHaveLength(2)
  await second.welcome()
  await clock.advance(10_000)
  await second.end(4005)
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 4005, retryInMs: 30_000 })
})

test('the older session is superseded after the newer one has opened: not a word', async () => {
  const { onMessage } = held()
  const { edge, clock, device, events } = connected({ onMessage })
  const first = await edge.newest()
  await first.welcome()
  await first.message('keeps the first session lingering')
  await first.goaway(0)
  await clock.advance(0)
  await (await edge.newest()).welcome()
  await first.end(4005)
  expect(events.at(-1)?.name).toBe('welcome')
  expect(device.state).toBe('open')
  await clock.advance(120_000)
  expect(edge.sockets).toHaveLength(2)
})

test('a final close code stops the device for good, with the edge’s words', async () => {
  const { edge, clock, device, events } = connected()
  const socket = await edge.newest()
  await socket.say({ type: 'error', reason: 'UNAUTHENTICATED', message: 'the token has a bad signature' })
  await socket.end(4500)
  expect(device.state).toBe('stopped')
  expect(events.at(-1)).toEqual({ name: 'stopped', code: 4500, reason: 'the token has a bad signature' })
  await clock.advance(3_600_000)
  expect(edge.sockets).toHaveLength(1)
  expect(clock.pendingTimers).toBe(0)
})

test('an operator’s disconnect also ends an attempt that is under way', async () => {
  const { edge, clock, device } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.goaway(0)
  await clock.advance(0)
  const second = await edge.newest()
  await first.end(4501, 'lost device')
  await settled()
  expect(second.closedByDevice).toBe(true)
  expect(device.state).toBe('stopped')
  expect(clock.pendingTimers).toBe(0)
})

test('what is no frame is told and left out', async () => {
  const { edge, device, events, handled } = connected()
  const socket = await edge.newest()
  await socket.message('before welcome')
  await socket.welcome()
  await socket.sayText('{')
  await socket.sayText(new ArrayBuffer(2))
  await socket.say({ type: 'hologram' })
  await socket.welcome({ session_id: 's2' })
  expect(events.filter((event) => event.name === 'problem').map((event) => `${event.reason}: ${event.message}`)).toEqual([
    'INVALID_FRAME: a message before welcome',
    'INVALID_FRAME: not JSON',
    'INVALID_FRAME: a binary frame',
    'UNKNOWN_TYPE: unknown type hologram',
    'INVALID_FRAME: a second welcome',
  ])
  expect(handled).toEqual([])
  expect(device.state).toBe('open')
  expect(socket.sent).toEqual([])
})

test('a socket that throws at sending is replaced', async () => {
  const { edge, clock } = connected()
  const first = await edge.newest()
  await first.welcome()
  first.broken = true
  await first.message('m')
  await clock.advance(1_000)
  const second = await edge.newest()
  await second.welcome()
  expect(second.sent).toEqual([{ type: 'ack', ids: ['m'] }])
})

test('above the bound of owed answers the oldest is forgotten, and told', async () => {
  const { onMessage, ends } = held()
  const { edge, clock, events } = connected({
    onMessage: { USER: onMessage, DIAGNOSTIC: onMessage },
    bounds: { owedAnswersMax: 1 },
  })
  const first = await edge.newest()
  await first.welcome()
  await first.message('a')
  await first.message('b', { class: 'DIAGNOSTIC' })
  await first.end(1006)
  for (const end of ends.values()) end()
  await settled()
  expect(events.map((event) => event.reason)).toContain('ANSWER_DROPPED')
  await clock.advance(1_000)
  const second = await edge.newest()
  await second.welcome()
  expect(second.sent).toEqual([{ type: 'ack', ids: ['b'] }])
})

test('closing lets the running handler answer, then closes, and leaves no timer', async () => {
  const { onMessage, finish } = held()
  const { edge, clock, device } = connected({ onMessage })
  const socket = await edge.newest()
  await socket.welcome()
  await socket.message('m')
  const closing = device.close()
  expect(device.state).toBe('closed')
  await settled()
  expect(socket.closedByDevice).toBe(false)
  await finish('m')
  await closing
  expect(socket.sent).toEqual([{ type: 'ack', ids: ['m'] }])
  expect(socket.closedByDevice).toBe(true)
  expect(clock.pendingTimers).toBe(0)
  await device.close()
})

test('closing while the old session lingers leaves no timer', async () => {
  const { onMessage } = held()
  const { edge, clock, device } = connected({ onMessage })
  const first = await edge.newest()
  await first.welcome()
  await first.message('hung')
  await first.goaway(0)
  await clock.advance(0)
  const second = await edge.newest()
  await second.welcome()
  const closing = device.close({ graceMs: 500 })
  await clock.advance(500)
  await closing
  expect([first.closedByDevice, second.closedByDevice]).toEqual([true, true])
  expect(clock.pendingTimers).toBe(0)
})

test('closing while the token is on its way opens no socket', async () => {
  const token = Promise.withResolvers<string>()
  const { edge, device } = connected({ token: () => token.promise })
  await device.close()
  token.resolve('late')
  await settled()
  expect(edge.sockets).toEqual([])
})

test('a connection that breaks takes its planned answers and its timers along', async () => {
  const { edge, clock } = connected()
  const first = await edge.newest()
  await first.welcome()
  await first.message('a')
  await first.message('b')
  expect(first.sent).toEqual([{ type: 'ack', ids: ['a'] }])
  await first.end(1006)
  expect(clock.pendingTimers).toBe(1)
  await clock.advance(1_000)
  const second = await edge.newest()
  await second.welcome()
  expect(second.sent).toEqual([{ type: 'ack', ids: ['b'] }])
})

test('a device that was stopped starts no handler any more', async () => {
  const { onMessage, finish, ends } = held()
  const { edge } = connected({ onMessage })
  const socket = await edge.newest()
  await socket.welcome()
  await socket.message('running')
  await socket.message('queued')
  await socket.end(4501)
  await finish('running')
  expect([...ends.keys()]).toEqual(['running'])
})

test('closing waits neither for a hung handler nor for a silent edge', async () => {
  const { edge, clock, device } = connected({ onMessage: () => new Promise(() => {}) })
  const socket = await edge.newest()
  socket.silentAtClose = true
  await socket.welcome()
  await socket.message('m')
  const closing = device.close({ graceMs: 500 })
  await clock.advance(500 + 1_000)
  await closing
  expect(clock.pendingTimers).toBe(0)
})

test('closing before the first session ends the attempt', async () => {
  const { edge, clock, device } = connected()
  const socket = await edge.newest()
  await device.close()
  expect(socket.closedByDevice).toBe(true)
  await clock.advance(600_000)
  expect(edge.sockets).toHaveLength(1)
})

test('an address of another scheme is said so at once', () => {
  expect(() => connected({ url: 'http://127.0.0.1/' })).toThrow(
    'http://127.0.0.1/ is no address to connect to; expected wss:// or ws://',
  )
  expect(() => connected({ url: 'nonsense' })).toThrow('expected wss:// or ws://')
})
