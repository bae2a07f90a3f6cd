import { SignJWT } from 'jose'
import { expect } from 'vitest'
import { WebSocket } from 'ws'
import { type EdgeFixture, test } from './testing/edge-fixture.ts'
import { handshakeText, rawClient } from './testing/raw-client.ts'

const secret = 's'.repeat(32)
const env = { EDGE_AUTH: 'jwt-hs256', EDGE_JWT_SECRET: secret, EDGE_CREDENTIAL_REFRESH_MIN_MS: '0' }
/** A token for one and the same device. */
const tokenOf = (claims: Record<string, unknown>, key = secret) =>
  new SignJWT({ sub: 'tv-1', account: 'anna', ...claims }).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(key))

/** Sends a whole request over a raw socket, and waits for the answer. */
async function ask(address: string, text: string): Promise<void> {
  const client = rawClient(address)
  client.write(text)
  await client.status()
  client.end()
  await client.closed
}

async function told(edge: EdgeFixture, device: { closed: Promise<{ code: number }> }): Promise<void> {
  await device.closed
  expect(edge.log.entries.length).toBeGreaterThan(0)
}

test('no part of a token is ever logged or counted, wherever a client puts it, believed or not', async ({ edge }) => {
  const { deviceAddress } = await edge.start(env)
  const nowSeconds = edge.clock.now() / 1_000
  const good = await tokenOf({ exp: nowSeconds + 3_600 })
  const next = await tokenOf({ exp: nowSeconds + 7_200 })
  const expired = await tokenOf({ exp: nowSeconds - 3_600 })
  const forged = await tokenOf({ exp: nowSeconds + 3_600 }, 'x'.repeat(32))
  const tokens = [good, next, expired, forged]

  const device = await edge.open(good)
  device.send({ type: 'credential', token: next })
  await device.next('credential_accepted')
  device.send({ type: 'credential', token: expired })
  await device.next('error')
  // No frame at all, and a token where another thing belongs.
  device.webSocket.send(good)
  await device.next('error')
  device.send({ type: good })
  await device.next('error')
  device.send({ type: 'credential', token: forged })
  await told(edge, device)

  for (const token of tokens) {
    if (token === expired || token === forged) await told(edge, edge.connect(token))
    const browser = new WebSocket(`ws://${deviceAddress}/v1/connect`, ['push.v1.json', `push.bearer.${token}`])
    browser.on('error', () => {})
    const closed = new Promise((resolve) => browser.on('close', resolve))
    if (token === good || token === next) browser.on('message', () => browser.terminate())
    await closed

    const inQuery = { 'Sec-WebSocket-Protocol': 'push.v1.json', Authorization: undefined }
    await ask(deviceAddress, handshakeText(inQuery).replace('/v1/connect', `/v1/connect?token=${token}&acks=${token}`))
    await ask(deviceAddress, handshakeText({ Authorization: token }))
    await ask(deviceAddress, handshakeText({ 'Sec-WebSocket-Protocol': token }))
    await ask(deviceAddress, handshakeText({ Origin: token, Authorization: `Bearer ${token}` }))
    await ask(deviceAddress, `GET /${token} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n`)
    await ask(deviceAddress, `${token} / HTTP/1.1\r\n\r\n`)
    await ask(deviceAddress, `GET /v1/events?access_token=${token} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n`)
    const body = JSON.stringify({ type: 'ack', ids: [token] })
    const post = `POST /v1/answers?token=${token} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nAuthorization: Bearer ${forged}\r\n`
    await ask(deviceAddress, `${post}Content-Length: ${body.length}\r\n\r\n${body}`)
  }

  const written = `${JSON.stringify(edge.log.entries)}\n${await edge.metrics.text()}`
  const parts = tokens.flatMap((token) => token.split('.').slice(1))
  for (const part of parts) for (const piece of [part, part.slice(0, 20), part.slice(-20)]) expect(written).not.toContain(piece)
  // There was something to look at: refusals of all those kinds, and a session that ended.
  expect(edge.log.withPhrase('device refused').length).toBeGreaterThan(10)
})
