import { afterEach, describe, expect } from 'vitest'
import { connectDevice, type Device, type DeviceOptions } from '../device-sdk/index.ts'
import { deliveryOf } from '../edge/testing/deliveries.ts'
import { type EdgeFixture, test } from '../edge/testing/edge-fixture.ts'
import { CloseReason, OutcomeKind } from '../gen/push/internal/v1/edge.ts'

// The device SDK against a real edge, in every form.

const { WRITTEN, ACKNOWLEDGED, NACKED, RESULT } = OutcomeKind

const devices: Device[] = []
afterEach(async () => {
  await Promise.all(devices.splice(0).map((device) => device.close({ graceMs: 0 })))
})

describe.each([
  ['WebSocket with JSON', {}, 'push.v1.json'],
  ['WebSocket with Protobuf', { protocol: 'protobuf' }, 'push.v1.protobuf'],
  ['event stream', { transport: 'sse' }, 'push.v1.sse'],
] as const)('%s', (_name, form: Partial<DeviceOptions>, protocol) => {
  const connect = (edge: EdgeFixture, options: Partial<DeviceOptions> = {}) => {
    const url = form.transport === 'sse' ? edge.url('/v1/events') : edge.url().replace('http:', 'ws:')
    const device = connectDevice({ url, token: 'dev:tv-1', onMessage: () => {}, ...form, ...options })
    devices.push(device)
    return device
  }
  const sessionIds = (edge: EdgeFixture) => edge.plane.rows.map(({ sessionId }) => sessionId)

  test('messages are handled once and answered; bytes, text and JSON come as what they are', async ({ edge }) => {
    await edge.start()
    const handled: unknown[] = []
    connect(edge, {
      onMessage(message) {
        handled.push(message.data)
        if (message.name === 'refuse') throw new Error('not today')
        return { shown: message.name }
      },
    })
    await expect.poll(() => edge.plane.rows.map((row) => row.protocol)).toEqual([protocol])
    const [sessionId = ''] = sessionIds(edge)
    const router = edge.router()
    const deliveries = [
      deliveryOf({ name: 'json', data: { n: 1 } }, { sessionId }),
      deliveryOf({ name: 'refuse' }, { sessionId, payload: Buffer.from('words'), contentType: 'text/plain' }),
      deliveryOf({ name: 'bytes', confirm: 'RESULT' }, { sessionId, payload: Buffer.from([0, 255]), contentType: 'image/x' }),
    ]
    router.send({ deliveries })
    const [json, text, bytes] = deliveries.map(({ deliveryId }) => deliveryId)
    expect(await router.kinds(json ?? 0, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(await router.kinds(text ?? 0, 2)).toEqual([WRITTEN, NACKED])
    // The handler may return so soon that the result goes in place of the acknowledgement.
    await expect.poll(async () => (await router.kinds(bytes ?? 0, 2)).at(-1)).toBe(RESULT)
    expect(handled).toEqual([{ n: 1 }, 'words', new Uint8Array([0, 255])])
    expect(String(router.outcomes.find(({ kind }) => kind === RESULT)?.result?.data)).toBe('{"shown":"bytes"}')
  })

  test('told to move, it opens the new session before it leaves the old one', async ({ edge }) => {
    await edge.start({ EDGE_LIFETIME_MS: '5000', EDGE_LIFETIME_JITTER_MS: '0', EDGE_SLOT_MAX_MS: '0' })
    const device = connect(edge)
    const disconnected: unknown[] = []
    device.on('disconnected', (event) => disconnected.push(event))
    await expect.poll(() => edge.plane.rows.length).toBe(1)
    const [old = ''] = sessionIds(edge)
    await edge.pass(5_500)
    await expect.poll(() => sessionIds(edge).filter((id) => id !== old)).toHaveLength(1)
    await expect.poll(() => sessionIds(edge)).not.toContain(old)
    expect(device.counts.sessions).toBe(2)
    // Its end may be heard of before the new one's welcome; it is no reason to wait.
    for (const event of disconnected) expect(event).toMatchObject({ code: 4005, retryInMs: 0 })
  })

  test('an operator ends it for good', async ({ edge }) => {
    await edge.start()
    const device = connect(edge)
    const stopped = new Promise((resolve) => device.on('stopped', resolve))
    await expect.poll(() => edge.plane.rows.length).toBe(1)
    const [sessionId = ''] = sessionIds(edge)
    edge.router().send({
      closeSessions: [{ closeId: 1, deviceId: 'tv-1', sessionId, reason: CloseReason.DISCONNECTED, detail: 'recalled' }],
    })
    expect(await stopped).toEqual({ code: 4501, reason: 'disconnected by an operator: recalled' })
  })

  test('a credential that does not hold stops it; an edge that is full only puts it off', async ({ edge }) => {
    await edge.start({ EDGE_CONNECTION_LIMIT: '1', EDGE_LISTENER_CLOSE_PERCENT: '100' })
    const bad = connect(edge, { token: 'junk' })
    const stopped = await new Promise((resolve) => bad.on('stopped', resolve))
    expect(stopped).toMatchObject({ code: 4500 })
    connect(edge)
    await expect.poll(() => edge.plane.rows.length).toBe(1)
    const second = connect(edge, { token: 'dev:tv-2' })
    expect(await new Promise((resolve) => second.on('disconnected', resolve))).toMatchObject({ code: 1013 })
    expect(second.state).toBe('waiting')
  })
})
