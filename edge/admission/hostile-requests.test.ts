import { once } from 'node:events'
import { connect } from 'node:net'
import fc from 'fast-check'
import { expect } from 'vitest'
import { WebSocket } from 'ws'
import { test } from '../testing/edge-fixture.ts'
import { handshakeText } from '../testing/raw-client.ts'

const seed = 20_260_102

/** Requests as they should be and as they should not, whole or cut off, some with bytes changed, one or several on a connection. */
const line = fc.constantFrom(
  'GET /v1/connect HTTP/1.1',
  'GET /v1/events HTTP/1.1',
  'POST /v1/answers HTTP/1.1',
  'OPTIONS /v1/answers HTTP/1.1',
  'GET /healthz HTTP/1.1',
  'CONNECT edge:443 HTTP/1.1',
  'GET http://edge/v1/connect?acks=none HTTP/1.1',
  'GET /v1/connect?acks=some&acks=none HTTP/1.0',
  'PRI * HTTP/2.0',
  'GET //%2e%2e/\0 HTTP/1.1',
)
const header = fc.oneof(
  fc.constantFrom(
    'Host: edge',
    'Connection: Upgrade',
    'Connection: keep-alive, close',
    'Upgrade: websocket',
    'Upgrade: h2c',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Version: 8',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Key: short',
    'Sec-WebSocket-Protocol: push.v1.json',
    'Sec-WebSocket-Protocol: push.v1.protobuf, push.bearer.ZGV2OnR2',
    'Sec-WebSocket-Protocol: ,,,',
    'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99',
    'Authorization: Bearer dev:tv-1',
    'Authorization: Basic AAAA',
    'Origin: null',
    'Expect: 100-continue',
    'Expect: nothing',
    'Content-Length: 5',
    'Content-Length: -1',
    'Content-Length: 99999999999999999999',
    'Transfer-Encoding: chunked',
    'Transfer-Encoding: chunked, identity',
    ' folded: line',
    'No colon',
  ),
  fc
    .tuple(fc.string({ maxLength: 20 }), fc.string({ maxLength: 200, unit: 'binary' }))
    .map(([name, value]) => `${name}: ${value}`),
)
const built = fc
  .tuple(line, fc.array(header, { maxLength: 12 }), fc.constantFrom('', '5\r\nhello\r\n0\r\n\r\n', '{"type":"ack","ids":["a"]}'))
  .map(([first, headers, body]) => Buffer.from(`${[first, ...headers].join('\r\n')}\r\n\r\n${body}`, 'latin1'))
const input = fc
  .tuple(
    fc.array(fc.oneof(built, fc.constant(Buffer.from(handshakeText())), fc.uint8Array({ maxLength: 200 })), {
      minLength: 1,
      maxLength: 4,
    }),
    fc.array(fc.tuple(fc.nat(600), fc.nat(255)), { maxLength: 4 }),
    fc.nat(2_000),
  )
  .map(([parts, changes, cut]) => {
    const bytes = Buffer.concat(parts)
    for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
    return bytes.subarray(0, cut < 1_000 ? cut : undefined)
  })

test('whatever comes as a request, in whatever pieces, is answered in HTTP or not at all; nothing breaks, and nothing is left', async ({
  edge,
}) => {
  await edge.start()
  const number = Number(new URL(edge.url()).port)
  const send = async (bytes: Buffer, at: number): Promise<Buffer> => {
    const socket = connect({ port: number, host: '127.0.0.1', noDelay: true })
    const chunks: Buffer[] = []
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', () => {})
    const closed = once(socket, 'close')
    socket.write(bytes.subarray(0, at))
    await new Promise((resolve) => setImmediate(resolve))
    // Whoever has said all is waited for by nobody: the server closes, too.
    socket.end(bytes.subarray(at))
    // Sessions, streams and those whose request is not whole would stay: the test is about what comes, not about how long.
    await edge.pass(0)
    socket.destroy()
    await closed
    return Buffer.concat(chunks)
  }
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(input, fc.nat(300)), { minLength: 8, maxLength: 8 }), async (inputs) => {
      const answers = await Promise.all(inputs.map(([bytes, at]) => send(bytes, at)))
      for (const answer of answers) if (answer.length > 0) expect(answer.toString('latin1')).toMatch(/^HTTP\/1\.1 \d{3} /)
    }),
    { seed, numRuns: 60 },
  )
  await expect.poll(() => edge.metric('push_edge_waiting_connections')).toBe(0)
  await expect.poll(() => edge.metric('push_edge_handshakes')).toBe(0)
  for (const state of ['registering', 'open', 'leaving']) {
    await expect.poll(async () => (await edge.metric('push_edge_sessions', { state })) ?? 0).toBe(0)
  }
  expect(await edge.metric('push_edge_sessions_admitted_total', { protocol: 'push.v1.json' })).toBeGreaterThan(10)
  expect(edge.log.entries.filter(({ facts }) => facts.cause !== undefined)).toEqual([])
  expect((await edge.open('dev:tv-9')).webSocket.readyState).toBe(WebSocket.OPEN)
})
