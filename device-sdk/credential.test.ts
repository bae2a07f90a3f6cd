import { describe, expect, test } from 'vitest'
import { connectDevice, type DeviceEvents, type DeviceOptions } from './device.ts'
import { ScriptedEdge, SERVER_TIME } from './testing/scripted-edge.ts'
import { SteeredClock } from './testing/steered-clock.ts'

const minuteMicros = 60_000_000

/** A device with a session whose credential ends after so many minutes; its tokens are counted up. */
async function connected(minutes: number, options: Partial<DeviceOptions> = {}, random = 0) {
  const clock = new SteeredClock()
  const edge = new ScriptedEdge()
  let asked = 0
  const device = connectDevice({
    url: 'ws://127.0.0.1:7480/v1/connect',
    token: () => `token-${++asked}`,
    onMessage() {},
    clock,
    random: { next: () => random },
    openSocket: edge.openSocket,
    ...options,
  })
  const events: { name: keyof DeviceEvents; [field: string]: unknown }[] = []
  for (const name of ['welcome', 'credential', 'problem', 'disconnected', 'stopped'] as const) {
    device.on(name, (event) => events.push({ name, ...event }))
  }
  const socket = await edge.newest()
  await socket.welcome({ credential_expire_time: SERVER_TIME + minutes * minuteMicros })
  const credentials = () => socket.sent.filter(({ type }) => type === 'credential')
  const accept = (until?: number) =>
    socket.say({ type: 'credential_accepted', ...(until !== undefined && { expire_time: SERVER_TIME + until * minuteMicros }) })
  return { clock, edge, device, socket, events, credentials, accept, asked: () => asked }
}

test('a new credential is asked for a minute before the old one ends, and the session goes on', async () => {
  const { clock, credentials, accept, events, asked } = await connected(10)
  expect(events).toMatchObject([{ name: 'welcome', credentialExpireTime: SERVER_TIME + 10 * minuteMicros }])
  await clock.advance(9 * 60_000 - 1)
  expect(asked()).toBe(1)
  await clock.advance(1)
  expect(credentials()).toEqual([{ type: 'credential', token: 'token-2' }])
  await accept(20)
  expect(events.at(-1)).toEqual({ name: 'credential', expireTime: SERVER_TIME + 20 * minuteMicros })
  // Nothing more until a minute before the end of the new one.
  await clock.advance(10 * 60_000 - 1)
  expect(credentials()).toHaveLength(1)
  await clock.advance(1)
  expect(credentials()).toHaveLength(2)
  await accept()
  expect(events.at(-1)).toEqual({ name: 'credential' })
  await clock.advance(1_000_000)
  expect(credentials()).toHaveLength(2)
})

test('devices do not ask together: each at a moment of its own', async () => {
  const { clock, credentials } = await connected(10, {}, 0.5)
  await clock.advance(8.5 * 60_000 - 1)
  expect(credentials()).toHaveLength(0)
  await clock.advance(1)
  expect(credentials()).toHaveLength(1)
})

test('a short credential is renewed in its last quarter', async () => {
  const { clock, credentials } = await connected(1)
  await clock.advance(44_999)
  expect(credentials()).toHaveLength(0)
  await clock.advance(1)
  expect(credentials()).toHaveLength(1)
})

describe('an edge that does not accept', () => {
  test.each(['OVERLOADED', 'CREDENTIAL_EXPIRED', 'RATE_EXCEEDED'])('%s: another is shown after a while', async (reason) => {
    const { clock, credentials, socket, events } = await connected(10)
    await clock.advance(9 * 60_000)
    await socket.say({ type: 'error', reason, message: 'not now' })
    expect(events.at(-1)).toMatchObject({ name: 'problem', reason })
    await clock.advance(14_999)
    expect(credentials()).toHaveLength(1)
    await clock.advance(1)
    expect(credentials().at(-1)).toEqual({ type: 'credential', token: 'token-3' })
  })

  test.each(['UNKNOWN_TYPE', 'INVALID_FRAME'])('%s: it is not asked again on this session', async (reason) => {
    const { clock, credentials, socket } = await connected(10)
    await clock.advance(9 * 60_000)
    await socket.say({ type: 'error', reason, message: 'what is that' })
    await clock.advance(10 * 60_000)
    expect(credentials()).toHaveLength(1)
  })

  test('an error about something else does not end the renewing', async () => {
    const { clock, credentials, socket } = await connected(10)
    await socket.say({ type: 'error', reason: 'INVALID_FRAME', message: 'some other frame' })
    await clock.advance(9 * 60_000)
    expect(credentials()).toHaveLength(1)
  })

  test('4500 stops the device, as at the connect', async () => {
    const { clock, socket, device, credentials } = await connected(10)
    await clock.advance(9 * 60_000)
    await socket.say({ type: 'error', reason: 'UNAUTHENTICATED', message: 'another device' })
    await socket.end(4500)
    expect(device.state).toBe('stopped')
    await clock.advance(10 * 60_000)
    expect(credentials()).toHaveLength(1)
    expect(clock.pendingTimers).toBe(0)
  })
})

test('a token that cannot be had is asked for again, and told', async () => {
  let fails = 2
  const { clock, credentials, events } = await connected(10, {
    token: () => {
      if (fails-- === 1) throw new Error('the token service is away')
      return 'token'
    },
  })
  await clock.advance(9 * 60_000)
  expect(credentials()).toHaveLength(0)
  expect(events.at(-1)).toMatchObject({ name: 'problem', reason: 'TOKEN_FAILED' })
  await clock.advance(15_000)
  expect(credentials()).toHaveLength(1)
})

test('a token that never comes is waited for no longer than its time, and one answer is enough', async () => {
  let asked = 0
  const { clock, credentials, events } = await connected(10, {
    token: () => (++asked === 1 ? 'first' : new Promise<string>(() => {})),
  })
  await clock.advance(9 * 60_000 + 29_999)
  expect(asked).toBe(2)
  await clock.advance(1)
  expect(events.at(-1)).toMatchObject({ name: 'problem', reason: 'TOKEN_FAILED' })
  await clock.advance(60_000)
  expect(asked).toBeGreaterThan(2)
  expect(credentials()).toEqual([])
})

test('an app that gives the same token again is not asked all the time', async () => {
  const { clock, credentials, accept } = await connected(1, { token: () => 'the same' })
  await clock.advance(45_000)
  await accept(1)
  expect(credentials()).toHaveLength(1)
  await clock.advance(14_000)
  expect(credentials()).toHaveLength(1)
})

test('an app with one token only is closed with 4004, and comes back', async () => {
  const { clock, credentials, socket, edge, events } = await connected(10, { token: 'the only one' })
  await clock.advance(10 * 60_000)
  expect(credentials()).toEqual([])
  await socket.end(4004, 'the credential has expired')
  expect(events.at(-1)).toMatchObject({ name: 'disconnected', code: 4004 })
  await clock.advance(1_000)
  expect(edge.sockets).toHaveLength(2)
})

test('a session that has ended asks for nothing more', async () => {
  const { clock, device, asked } = await connected(10)
  await device.close()
  await clock.advance(20 * 60_000)
  expect(asked()).toBe(1)
  expect(clock.pendingTimers).toBe(0)
})
