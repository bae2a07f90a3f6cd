import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, expect } from 'vitest'
import { type ClientOptions, WebSocket } from 'ws'
import { type CertificateAuthority, type CertificatePair, createAuthority } from '../service-kit/testing/certificates.ts'
import { type EdgeFixture, test } from './testing/edge-fixture.ts'

const day = 24 * 3_600_000
// Held against two clocks: the machine's by TLS, the steered one by the edge. They begin at the same time.
const startMs = Date.now()
const notBeforeMs = startMs - day
const notAfterMs = startMs + 90 * day
const validity = { notBeforeMs, notAfterMs }

const folder = mkdtempSync(join(tmpdir(), 'push-device-tls-'))
afterAll(() => rmSync(folder, { recursive: true }))

let authority: CertificateAuthority
let stranger: CertificateAuthority
let device: CertificatePair
beforeAll(async () => {
  ;[authority, stranger] = await Promise.all([createAuthority(Date.now()), createAuthority(Date.now(), 'stranger')])
  device = await authority.issue({ commonName: 'tv', uris: ['push:device:tv-1', 'push:account:anna'], ...validity })
})

async function writeServerCertificate(): Promise<void> {
  const { certificate, key } = await authority.issue({ commonName: 'edge', ...validity })
  writeFileSync(join(folder, 'edge.crt'), certificate)
  writeFileSync(join(folder, 'edge.key'), key)
}

async function startTls(edge: EdgeFixture, more: Record<string, string> = {}): Promise<string> {
  edge.clock.setWall(startMs)
  await writeServerCertificate()
  writeFileSync(join(folder, 'devices.ca'), authority.certificate)
  const { deviceAddress } = await edge.start({
    EDGE_DEVICE_TLS_CERT_FILE: join(folder, 'edge.crt'),
    EDGE_DEVICE_TLS_KEY_FILE: join(folder, 'edge.key'),
    EDGE_DEVICE_CLIENT_CA_FILE: join(folder, 'devices.ca'),
    ...more,
  })
  return deviceAddress
}

const shows = ({ certificate, key }: CertificatePair): ClientOptions => ({ cert: certificate, key })

/** Connects over TLS, as the owner of a certificate or with a credential. */
function dial(address: string, options: ClientOptions = {}, protocols = ['push.v1.json']) {
  const webSocket = new WebSocket(`wss://${address}/v1/connect`, protocols, { ca: authority.certificate, ...options })
  const frames: Record<string, unknown>[] = []
  webSocket.on('message', (data) => frames.push(JSON.parse(String(data))))
  webSocket.on('error', () => {})
  const refused = new Promise<number | undefined>((resolve) => {
    webSocket.on('unexpected-response', (_request, { statusCode }) => resolve(statusCode))
  })
  const closed = new Promise<number>((resolve) => webSocket.on('close', resolve))
  return {
    webSocket,
    frames,
    refused,
    closed,
    frame: async (type: string) => {
      const find = () => frames.find((frame) => frame.type === type)
      await expect.poll(() => find() !== undefined, { timeout: 10_000, interval: 5, message: `a ${type} frame` }).toBe(true)
      return find()
    },
    end: async () => {
      webSocket.terminate()
      await closed
    },
  }
}

const withToken = (credential: string): ClientOptions => ({ headers: { authorization: `Bearer ${credential}` } })

test('devices come over TLS with a credential, a certificate, or both of one device', async ({ edge }) => {
  const address = await startTls(edge)
  const byCredential = dial(address, withToken('dev:tv-9'))
  expect(await byCredential.frame('welcome')).toMatchObject({ device_id: 'tv-9' })
  const byCertificate = dial(address, shows(device))
  const ends = Math.floor(notAfterMs / 1_000) * 1_000_000
  const welcome = await byCertificate.frame('welcome')
  expect(welcome).toMatchObject({ device_id: 'tv-1' })
  // The certificate's end, to the second.
  expect(Math.abs(Number(welcome?.credential_expire_time) - ends)).toBeLessThan(2_000_000)
  expect(edge.plane.rows).toMatchObject([{ deviceId: 'tv-9' }, { deviceId: 'tv-1', accountId: 'anna' }])
  const both = dial(address, { ...shows(device), ...withToken('dev:tv-1/anna') })
  expect(await both.frame('welcome')).toMatchObject({ device_id: 'tv-1' })
  const two = dial(address, { ...shows(device), ...withToken('dev:tv-2/anna') })
  expect(await two.refused).toBe(401)
  const none = dial(address)
  expect(await none.refused).toBe(401)
  for (const each of [byCredential, byCertificate, both, two, none]) await each.end()
})

test('a certificate that does not hold is told, by status or in frames, also beside a credential that does', async ({ edge }) => {
  const address = await startTls(edge)
  const foreign = await stranger.issue({ commonName: 'tv', uris: ['push:device:tv-1'], ...validity })
  const past = { notBeforeMs: Date.now() - 2 * day, notAfterMs: Date.now() - day }
  const expired = await authority.issue({ commonName: 'tv', uris: ['push:device:tv-1'], ...past })
  const service = await authority.issue({ commonName: 'edge', uris: ['push:role:edge'], ...validity })
  for (const pair of [foreign, service, expired]) {
    const refused = dial(address, { ...shows(pair), ...withToken('dev:tv-1') })
    expect(await refused.refused).toBe(401)
    await refused.end()
  }
  expect(await edge.metric('push_edge_client_certificates_total', { verdict: 'invalid' })).toBe(2)
  expect(await edge.metric('push_edge_client_certificates_total', { verdict: 'expired' })).toBe(1)
  expect(await edge.metric('push_edge_refusals_total', { reason: 'expired' })).toBe(1)
  const browser = dial(address, shows(foreign), ['push.v1.json', `push.bearer.${Buffer.from('dev:tv-1').toString('base64url')}`])
  expect(await browser.frame('error')).toMatchObject({ reason: 'UNAUTHENTICATED' })
  expect(await browser.closed).toBe(4500)
})

test('where certificates alone count, credentials do not', async ({ edge }) => {
  const address = await startTls(edge, { EDGE_AUTH: 'client-certificate' })
  const credential = dial(address, { ...shows(device), ...withToken('dev:tv-1/anna') })
  expect(await credential.refused).toBe(401)
  const well = dial(address, shows(device))
  await well.frame('welcome')
  well.webSocket.send(JSON.stringify({ type: 'credential', token: 'dev:tv-1/anna' }))
  expect(await well.frame('error')).toMatchObject({ reason: 'INVALID_FRAME' })
  for (const each of [credential, well]) await each.end()
})

test('a session ends with its client certificate, whatever credential it is shown', async ({ edge }) => {
  const address = await startTls(edge, {
    EDGE_LIFETIME_MS: '86400000',
    EDGE_LIFETIME_JITTER_MS: '0',
    EDGE_PING_INTERVAL_MS: '600000',
  })
  // Far enough ahead that it does not end by the machine's clock as well before it is shown.
  const lifeMs = 500_000
  const endMs = Math.floor(startMs / 1_000) * 1_000 + lifeMs
  const short = await authority.issue({ commonName: 'tv', uris: ['push:device:tv-1'], notBeforeMs, notAfterMs: endMs })
  const one = dial(address, { ...shows(short), ...withToken('dev:tv-1') })
  await one.frame('welcome')
  one.webSocket.send(JSON.stringify({ type: 'credential', token: 'dev:tv-1' }))
  expect(await one.frame('credential_accepted')).toMatchObject({ expire_time: expect.closeTo(endMs * 1_000, -6) })
  await edge.pass(lifeMs + 2_000)
  expect(await one.closed).toBe(4004)
})

test('files that change are in force for new connections, and open ones stay', async ({ edge }) => {
  const address = await startTls(edge)
  const serial = () =>
    new Promise<string | undefined>((resolve, reject) => {
      const [host, port] = address.split(':')
      const socket = connectTls({ host: host ?? '', port: Number(port), ca: authority.certificate }, () => {
        resolve(socket.getPeerX509Certificate()?.serialNumber)
        socket.destroy()
      })
      socket.on('error', reject)
    })
  const open = dial(address, shows(device))
  await open.frame('welcome')
  const before = await serial()
  await writeServerCertificate()
  writeFileSync(join(folder, 'devices.ca'), stranger.certificate)
  await expect
    .poll(
      async () => {
        await edge.pass(10_000)
        return serial()
      },
      { timeout: 10_000 },
    )
    .not.toBe(before)
  expect(open.webSocket.readyState).toBe(WebSocket.OPEN)
  // Its authority counts no longer.
  const again = dial(address, shows(device))
  expect(await again.refused).toBe(401)
  const foreign = await stranger.issue({ commonName: 'tv', uris: ['push:device:tv-7'], ...validity })
  const well = dial(address, shows(foreign))
  expect(await well.frame('welcome')).toMatchObject({ device_id: 'tv-7' })
  // What does not hold is told, and changes nothing.
  writeFileSync(join(folder, 'edge.key'), 'nothing')
  const broken = () => edge.log.withPhrase('changed files are not used; what was read before stays in force').length
  await expect
    .poll(
      async () => {
        await edge.pass(10_000)
        return broken()
      },
      { timeout: 10_000 },
    )
    .toBe(1)
  expect(await serial()).not.toBe(before)
  for (const each of [open, again, well]) await each.end()
})

test('what does not speak TLS is cut without a word, and counted', async ({ edge }) => {
  const address = await startTls(edge)
  const [host, port] = address.split(':')
  const plain = connectTcp(Number(port), host)
  let said = ''
  plain.on('data', (chunk) => {
    said += chunk.toString('latin1')
  })
  plain.on('error', () => {})
  plain.write('GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n')
  await once(plain, 'close')
  expect(said).not.toContain('HTTP')
  await expect.poll(() => edge.metric('push_edge_tls_failures_total'), { timeout: 10_000 }).toBe(1)
})

test('a PROXY header comes before TLS; requests and event streams are served over it too', async ({ edge }) => {
  const address = await startTls(edge, { EDGE_PROXY_ADDRESSES: '127.0.0.1' })
  const [host, port] = address.split(':')
  const through = () => {
    const raw = connectTcp(Number(port), host)
    raw.write('PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n')
    return connectTls({
      socket: raw,
      ca: authority.certificate,
      cert: device.certificate,
      key: device.key,
      servername: 'localhost',
    })
  }
  const one = dial(address, { createConnection: through })
  expect(await one.frame('welcome')).toMatchObject({ device_id: 'tv-1' })
  await one.end()
  const stream = request({ createConnection: through, path: '/v1/events', headers: { host: 'edge' } })
  stream.end()
  const [response] = await once(stream, 'response')
  expect(response.statusCode).toBe(200)
  const [chunk] = await once(response, 'data')
  expect(String(chunk)).not.toBe('')
  stream.destroy()
})
