import { afterAll, afterEach, beforeAll, describe, expect } from 'vitest'
import { deliveryOf } from '../../edge/testing/deliveries.ts'
import { type EdgeFixture, test } from '../../edge/testing/edge-fixture.ts'
import { CloseReason, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import { type Browser, openBrowser } from './browser.ts'

// The SDK as a page of a real browser has it, and the browser's own WebSocket and EventSource, against a real edge.

const { WRITTEN, ACKNOWLEDGED, RESULT } = OutcomeKind

let browser: Browser
beforeAll(async () => {
  browser = await openBrowser()
}, 180_000)
afterAll(() => browser?.close())

const connected: string[] = []
afterEach(async () => {
  for (const device of connected.splice(0)) await browser.call('close', device)
})

const start = (edge: EdgeFixture, settings: Record<string, string> = {}) =>
  edge.start({ EDGE_ALLOWED_ORIGINS: browser.origin, ...settings })
const webSocketUrl = (edge: EdgeFixture) => edge.url().replace('http:', 'ws:')

describe.each([
  ['WebSocket with JSON', { transport: 'websocket' }, 'push.v1.json'],
  ['WebSocket with Protobuf', { protocol: 'protobuf' }, 'push.v1.protobuf'],
  ['event stream', { transport: 'sse' }, 'push.v1.sse'],
] as const)('the SDK in a page: %s', (device, form, protocol) => {
  test('handles messages of every kind, answers them, and stops when an operator says so', async ({ edge }) => {
    await start(edge)
    connected.push(device)
    const url = protocol === 'push.v1.sse' ? edge.url('/v1/events') : webSocketUrl(edge)
    await browser.call('connect', device, { url, token: 'dev:tv-1', ...form })
    await expect.poll(() => browser.eventsOf(device, 'welcome')).toMatchObject([{ deviceId: 'tv-1' }])
    expect(edge.plane.rows).toMatchObject([{ deviceId: 'tv-1', protocol }])
    const sessionId = edge.plane.rows[0]?.sessionId ?? ''
    const router = edge.router()
    const deliveries = [
      deliveryOf({ data: { text: 'é\u{1f4fa}\n', big: 'x'.repeat(50_000) } }, { sessionId }),
      deliveryOf({ confirm: 'RESULT' }, { sessionId, payload: Buffer.from([0, 255, 10]), contentType: 'image/x' }),
    ]
    router.send({ deliveries })
    const [json, bytes] = deliveries
    expect(await router.kinds(json?.deliveryId ?? 0, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
    await expect.poll(async () => (await router.kinds(bytes?.deliveryId ?? 0, 2)).at(-1)).toBe(RESULT)
    const result = router.outcomes.find(({ kind }) => kind === RESULT)?.result
    expect(JSON.parse(String(result?.data))).toEqual({ handled: bytes?.messageId })
    expect(browser.eventsOf(device, 'handled')).toEqual([
      { id: json?.messageId, contentType: 'application/json', data: { text: 'é\u{1f4fa}\n', big: 'x'.repeat(50_000) } },
      { id: bytes?.messageId, contentType: 'image/x', data: [0, 255, 10] },
    ])
    const close = { closeId: 1, deviceId: 'tv-1', sessionId, reason: CloseReason.DISCONNECTED, detail: 'recalled' }
    router.send({ closeSessions: [close] })
    const ending = { code: 4501, reason: 'disconnected by an operator: recalled' }
    await expect.poll(() => browser.eventsOf(device, 'stopped')).toEqual([ending])
    expect(browser.eventsOf(device, 'problem')).toEqual([])
  })

  test('a credential that does not hold stops it, and it knows why', async ({ edge }) => {
    await start(edge)
    const refused = `${device}, refused`
    connected.push(refused)
    const url = protocol === 'push.v1.sse' ? edge.url('/v1/events') : webSocketUrl(edge)
    await browser.call('connect', refused, { url, token: 'junk', ...form })
    await expect.poll(() => browser.eventsOf(refused, 'stopped')).toMatchObject([{ code: 4500 }])
  })
})

test("a browser's WebSocket is told in frames why it is refused", async ({ edge }) => {
  await start(edge, { EDGE_CONNECTION_LIMIT: '1', EDGE_LISTENER_CLOSE_PERCENT: '100' })
  const refused = await browser.call('webSocket', webSocketUrl(edge), ['push.v1.json', 'push.bearer.junk'])
  expect(refused).toMatchObject({ code: 4500, frames: [{ type: 'error', reason: 'UNAUTHENTICATED' }] })
  await edge.open('dev:tv-1')
  const full = await browser.call('webSocket', webSocketUrl(edge), ['push.v1.json', 'push.bearer.junk'])
  expect(full).toMatchObject({ code: 1013, frames: [{ type: 'goaway', reason: 'overload' }] })
})

test("a browser's EventSource comes again after a passing refusal, and gives up at a final one", async ({ edge }) => {
  await start(edge, { EDGE_CONNECTION_LIMIT: '1', EDGE_LISTENER_CLOSE_PERCENT: '100' })
  expect(await browser.call('eventSource', edge.url('/v1/events'))).toEqual({ events: [], next: 'gives up' })
  await edge.open('dev:tv-1')
  const full = await browser.call('eventSource', edge.url('/v1/events'))
  expect(full).toEqual({ events: ['goaway', 'close'], next: 'comes again' })
})

test('a page sees what it is answered, refusals and Retry-After too', async ({ edge }) => {
  await start(edge)
  const refused = await browser.call('request', edge.url('/v1/events'), 'GET', 'junk')
  expect(refused).toMatchObject({ status: 401, text: expect.stringContaining('4500') })
  const answers = edge.url('/v1/answers')
  for (let count = 0; count < 100; count++) await browser.call('request', answers, 'POST', 'dev:tv-1')
  const late = await browser.call('request', answers, 'POST', 'dev:tv-1')
  expect(late).toMatchObject({ status: 429, retryAfter: expect.stringMatching(/^\d+$/) })
})

test('a page of an origin that is not allowed gets neither a session nor an answer', async ({ edge }) => {
  await edge.start({ EDGE_ALLOWED_ORIGINS: 'https://other.example' })
  const ended = await browser.call('webSocket', webSocketUrl(edge), ['push.v1.json', 'push.bearer.ZGV2OnR2LTE'])
  expect(ended).toEqual({ frames: [], code: 1006, reason: '' })
  expect(await browser.call('request', edge.url('/v1/events'), 'GET', 'dev:tv-1')).toBe('blocked')
  expect(await browser.call('request', edge.url('/v1/answers'), 'POST', 'dev:tv-1')).toBe('blocked')
  expect(edge.plane.registers).toEqual([])
})
