import { connect } from 'node:net'
import { describe, expect, test } from 'vitest'
import type { AdmittedDevice } from '../device-server.ts'
import { addresses, serveAlone } from '../testing/lone-port.ts'
import { handshakeText, type RawClient, rawClient } from '../testing/raw-client.ts'

const browserHandshake = handshakeText({
  Authorization: undefined,
  'Sec-WebSocket-Protocol': 'push.v1.json, push.bearer.ZGV2OnR2',
})
const health = 'GET /healthz HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n'
const loopback = addresses('127.0.0.0/8')

/** A port that lets everybody in, and remembers whom. */
async function serveOpen(...[more, limits]: Parameters<typeof serveAlone>) {
  const admitted: AdmittedDevice[] = []
  const port = await serveAlone({ admit: (device) => void admitted.push(device), ...more }, limits)
  return { ...port, admitted }
}

const answered = async (client: RawClient, text: string | Buffer) => {
  client.write(text)
  return client.status()
}

/** Sends over one socket, piece by piece, each in a packet of its own. */
async function sendInPieces(address: string, pieces: readonly (string | Buffer)[]): Promise<string> {
  const [host, port] = address.split(':')
  const socket = connect({ host: host ?? '', port: Number(port), noDelay: true })
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1')
  })
  socket.on('error', () => {})
  const closed = new Promise((resolve) => socket.on('close', resolve))
  for (const piece of pieces) {
    socket.write(piece)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await expect.poll(() => received !== '' || socket.destroyed, { interval: 5 }).toBe(true)
  socket.destroy()
  await closed
  return received
}

describe('time', () => {
  test('a client that sends a byte now and then is told 408 and cut when its time is over', async () => {
    const port = await serveOpen()
    port.client.write('GET /v1/connect HTTP/1.1\r\nX-Slow: ')
    for (let second = 0; second < 9; second++) {
      await port.clock.advance(1_000)
      port.client.write('x')
    }
    await expect.poll(() => port.server.connectionCount).toBe(1)
    await port.clock.advance(1_000)
    expect(await port.client.status()).toBe(408)
    await port.client.closed
    expect(port.refusals()).toEqual([['timeout', 408]])
    expect(await port.metric('push_edge_address_failures_total')).toBe(1)
    await port.close()
  })

  test('one that sends nothing at all goes the same way, as does one whose credential is looked at for too long', async () => {
    const port = await serveOpen({ identity: { authenticate: () => new Promise(() => {}) } })
    const silent = port.connect()
    port.client.write(handshakeText())
    await expect.poll(() => port.server.handshakeCount).toBe(1)
    await expect.poll(() => port.server.connectionCount).toBe(2)
    await port.clock.advance(10_000)
    await Promise.all([silent.closed, port.client.closed])
    expect(port.refusals()).toEqual([
      ['timeout', 408],
      ['timeout', 408],
    ])
    await port.close()
  })

  test('a session and a request that has been answered have no such deadline', async () => {
    const port = await serveOpen()
    expect(await answered(port.client, handshakeText())).toBe(101)
    const other = port.connect()
    expect(await answered(other, health.replace('close', 'keep-alive'))).toBe(200)
    await port.clock.advance(60_000)
    expect(port.server.connectionCount).toBe(2)
    other.end()
    await port.close()
  })

  test('a shorter time counts for those that are here as well', async () => {
    const port = await serveOpen()
    await expect.poll(() => port.server.connectionCount).toBe(1)
    await port.clock.advance(600)
    port.setLimits({ handshakeTimeoutMs: 500 })
    await port.clock.advance(0)
    await port.client.closed
    await port.close()
  })
})

describe('what one address may use', () => {
  test('connections at once: the next is told 429 with Retry-After, a browser by goaway and 1013', async () => {
    const port = await serveOpen({}, { addressConnectionLimit: 2 })
    expect(await answered(port.client, handshakeText())).toBe(101)
    const second = port.connect()
    expect(await answered(second, handshakeText())).toBe(101)
    const third = port.connect()
    expect(await answered(third, handshakeText())).toBe(429)
    await third.closed
    expect(third.received().toString()).toMatch(/retry-after: \d+/i)
    const browser = port.connect()
    browser.write(browserHandshake)
    expect(await browser.closeCode()).toBe(1013)
    expect(browser.received().toString()).toContain('"reason":"overload"')
    expect(port.refusals()).toEqual([
      ['address_connections', 429],
      ['address_connections', 1013],
    ])
    second.end()
    browser.end()
    await expect.poll(() => port.server.connectionCount).toBe(1)
    const fourth = port.connect()
    expect(await answered(fourth, handshakeText())).toBe(101)
    expect(port.admitted).toHaveLength(3)
    fourth.end()
    await port.close()
  })

  test('connections a second: it gets in again when its bucket has filled', async () => {
    const port = await serveOpen({}, { addressConnects: { ratePerSecond: 1, burst: 2 } })
    expect(await answered(port.client, handshakeText())).toBe(101)
    const [second, third, fourth] = [port.connect(), port.connect(), port.connect()]
    expect([await answered(second, handshakeText()), await answered(third, handshakeText())].sort()).toEqual([101, 429])
    expect(await answered(fourth, handshakeText())).toBe(429)
    await port.clock.advance(1_000)
    const fifth = port.connect()
    expect(await answered(fifth, handshakeText())).toBe(101)
    for (const client of [second, third, fourth, fifth]) client.end()
    await port.close()
  })

  test('failures: one that fails too often is refused before its credential is looked at; those who succeed cost nothing', async () => {
    let looks = 0
    const identity = {
      authenticate: async ({ text }: { text: string }) => {
        looks++
        return text === 'bad'
          ? ({ ok: false, verdict: 'invalid', detail: 'no' } as const)
          : ({ ok: true, deviceId: 'tv-1', accountId: undefined, expiresAtMs: undefined } as const)
      },
    }
    const port = await serveOpen({ identity }, { addressFailures: { ratePerSecond: 1, burst: 3 } })
    const attempt = async (credential: string) => {
      const client = port.connect()
      const status = await answered(client, handshakeText({ Authorization: `Bearer ${credential}` }))
      client.end()
      await client.closed
      await expect.poll(() => port.server.connectionCount).toBe(1)
      return status
    }
    for (let index = 0; index < 5; index++) expect(await attempt('good')).toBe(101)
    for (let index = 0; index < 3; index++) expect(await attempt('bad')).toBe(401)
    expect(await attempt('bad')).toBe(429)
    expect(looks).toBe(8)
    expect(await port.metric('push_edge_address_failures_total')).toBe(3)
    await port.clock.advance(1_000)
    expect(await attempt('good')).toBe(101)
    await port.close()
  })

  test('a health check before it does not make a wrong credential cost nothing', async () => {
    const port = await serveOpen({}, { addressFailures: { ratePerSecond: 1, burst: 2 } })
    for (let index = 0; index < 2; index++) {
      const client = port.connect()
      expect(await answered(client, health.replace('close', 'keep-alive'))).toBe(200)
      client.write(handshakeText({ Authorization: 'Bearer junk' }))
      await client.closed
      expect(client.received().toString()).toContain('HTTP/1.1 401')
    }
    expect(await answered(port.client, handshakeText())).toBe(429)
    await port.close()
  })

  test('requests on one connection cost what connections cost', async () => {
    const port = await serveOpen({}, { addressConnects: { ratePerSecond: 1, burst: 3 } })
    port.client.write(health.replace('close', 'keep-alive').repeat(5))
    await port.client.closed
    const answers = port.client
      .received()
      .toString()
      .match(/HTTP\/1.1 \d+/g)
    expect(answers?.slice(0, 4)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 429'])
    await port.close()
  })

  test('neither count for a balancer that is known to hide many, nor for health checks', async () => {
    const port = await serveOpen(
      {},
      { addressConnectionLimit: 1, addressFailures: { ratePerSecond: 1, burst: 1 }, unlimitedAddresses: loopback },
    )
    const clients = [port.client, port.connect(), port.connect()]
    for (const client of clients) expect(await answered(client, handshakeText())).toBe(101)
    expect(await port.metric('push_edge_addresses', { state: 'connected' })).toBeUndefined()
    port.setLimits({ unlimitedAddresses: addresses('none'), addressConnectionLimit: 10 })
    for (let index = 0; index < 3; index++) {
      const client = port.connect()
      expect(await answered(client, health)).toBe(200)
      await client.closed
    }
    for (const client of clients) client.end()
    await port.close()
  })
})

describe('what all may use', () => {
  test('connections a second: 503 with Retry-After, and not for one address that takes them all', async () => {
    const port = await serveOpen(
      {},
      { connects: { ratePerSecond: 1, burst: 2 }, addressConnects: { ratePerSecond: 1, burst: 100 } },
    )
    expect(await answered(port.client, handshakeText())).toBe(101)
    const [second, third] = [port.connect(), port.connect()]
    expect([await answered(second, handshakeText()), await answered(third, handshakeText())].sort()).toEqual([101, 503])
    expect(port.refusals()).toEqual([['rate', 503]])
    second.end()
    third.end()
    await port.close()
  })

  test('a connection over a limit that finds no place to be heard is answered and cut unheard', async () => {
    const port = await serveOpen({}, { addressConnectionLimit: 1, refusedSocketsMax: 1 })
    expect(await answered(port.client, handshakeText())).toBe(101)
    const heard = port.connect()
    await expect.poll(() => port.metric('push_edge_refused_connections')).toBe(1)
    const cut = port.connect()
    // It has asked for nothing yet.
    expect(await cut.status()).toBe(429)
    await cut.closed
    expect(await port.metric('push_edge_cut_connections_total', { reason: 'address_connections' })).toBe(1)
    heard.end()
    await expect.poll(() => port.metric('push_edge_refused_connections')).toBe(0)
    await port.close()
  })

  test('one address cannot take all places to be heard', async () => {
    const port = await serveOpen({}, { addressConnectionLimit: 1, refusedSocketsMax: 100 })
    expect(await answered(port.client, handshakeText())).toBe(101)
    const silent = Array.from({ length: 20 }, () => port.connect())
    await expect.poll(() => port.metric('push_edge_cut_connections_total', { reason: 'address_connections' })).toBe(4)
    expect(await port.metric('push_edge_refused_connections')).toBe(16)
    for (const client of silent) client.end()
    await port.close()
  })

  test('requests that are not finished: for one more the oldest goes, so that those who are quick come in', async () => {
    const port = await serveOpen({}, { handshakesMax: 3 })
    const silent = [port.client]
    for (const count of [1, 2, 3]) {
      await expect.poll(() => port.metric('push_edge_waiting_connections')).toBe(count)
      if (count < 3) silent.push(port.connect())
    }
    const quick = port.connect()
    expect(await answered(quick, handshakeText())).toBe(101)
    await port.client.closed
    expect(await port.client.status()).toBe(503)
    expect(port.refusals()).toEqual([['handshakes', 503]])
    expect(await port.metric('push_edge_waiting_connections')).toBe(2)
    // Junk is not free: it counts as one that never said what it wants.
    expect(await port.metric('push_edge_address_failures_total')).toBe(1)
    for (const client of [...silent, quick]) client.end()
    await port.close()
  })

  test('the port closes when the edge is nearly full, and opens again', async () => {
    const port = await serveOpen({}, { connectionLimit: 4, listenerClosePercent: 50 })
    expect(await answered(port.client, handshakeText())).toBe(101)
    const second = port.connect()
    expect(await answered(second, handshakeText())).toBe(101)
    await expect.poll(() => port.metric('push_edge_listener_open')).toBe(0)
    const refused = port.connect()
    await refused.closed
    expect(refused.received()).toHaveLength(0)
    // Sessions go on meanwhile; the place of one that has gone opens the port.
    second.end()
    await expect.poll(() => port.metric('push_edge_listener_open')).toBe(1)
    const third = port.connect()
    expect(await answered(third, handshakeText())).toBe(101)
    await expect.poll(() => port.metric('push_edge_listener_open')).toBe(0)
    port.setLimits({ listenerClosePercent: 100 })
    await expect.poll(() => port.metric('push_edge_listener_open')).toBe(1)
    port.setLimits({ connectionLimit: 2, listenerClosePercent: 95 })
    await expect.poll(() => port.metric('push_edge_listener_open')).toBe(0)
    third.end()
    await port.close()
  })
})

describe('headers', () => {
  test('64 are enough; more are refused rather than left out', async () => {
    const port = await serveOpen()
    const extra = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`X-${index}`, 'x']))
    expect(await answered(port.client, handshakeText(extra(57)))).toBe(101)
    const many = port.connect()
    expect(await answered(many, handshakeText(extra(58)))).toBe(431)
    const request = port.connect()
    expect(await answered(request, handshakeText({ Upgrade: undefined, Connection: 'close', ...extra(200) }))).toBe(431)
    await port.close()
  })
})

describe('behind a proxy', () => {
  const line = 'PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n'
  const block = Buffer.concat([
    Buffer.from('0d0a0d0a000d0a515549540a2121', 'hex'),
    Buffer.from([0, 36]),
    Buffer.from(`${'20010db8'.padEnd(31, '0')}5${'20010db8'.padEnd(31, '0')}11f9001bb`, 'hex'),
  ])
  const local = Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex')

  test.each([
    ['a line', Buffer.from(line), '203.0.113.9'],
    ['a block', block, '2001:db8::5'],
  ])('%s names the device, in logs and for its limits, however it is cut', async (_what, header, address) => {
    const port = await serveOpen({}, { proxyAddresses: loopback, addressConnectionLimit: 1 })
    const request = handshakeText({ Authorization: 'Bearer topsecret' })
    const bytes = Buffer.concat([header, Buffer.from(request)])
    const cuts = [[0], [1], [header.length - 1], [header.length], [header.length + 1], [5, 9, header.length + 20]]
    for (const at of cuts) {
      const pieces = [0, ...at].map((from, index, all) => bytes.subarray(from, all[index + 1] ?? bytes.length))
      expect(await sendInPieces(port.server.address, pieces)).toMatch(/^HTTP\/1.1 401 /)
      await expect.poll(() => port.server.connectionCount).toBe(1)
    }
    const lines = port.log.withPhrase('device refused')
    expect(lines).toHaveLength(cuts.length)
    for (const { facts } of lines) expect(facts).toMatchObject({ reason: 'unauthenticated', remote_address: address })
    port.client.write(Buffer.concat([header, Buffer.from(handshakeText())]))
    expect(await port.client.status()).toBe(101)
    expect(await sendInPieces(port.server.address, [header, handshakeText()])).toMatch(/^HTTP\/1.1 429 /)
    await port.close()
  })

  test('devices of one proxy are counted apart, and the proxy itself not at all', async () => {
    const port = await serveOpen({}, { proxyAddresses: loopback, addressConnectionLimit: 1 })
    const clients = Array.from({ length: 6 }, () => port.connect())
    const headers = [line, line.replace('.9', '.10'), block, local, local, 'PROXY UNKNOWN\r\n']
    for (const [index, client] of clients.entries()) {
      client.write(headers[index] ?? '')
      expect(await answered(client, handshakeText()), `${index}`).toBe(101)
    }
    expect(await port.metric('push_edge_proxy_headers_total', { result: 'local' })).toBe(3)
    expect(await port.metric('push_edge_proxy_headers_total', { result: 'v1' })).toBe(2)
    expect(await port.metric('push_edge_proxy_headers_total', { result: 'v2' })).toBe(1)
    for (const client of clients) client.end()
    await port.close()
  })

  test('a connection without a header is closed without a word, at its first wrong byte or when its time is over', async () => {
    const port = await serveOpen({}, { proxyAddresses: loopback })
    const plain = port.connect()
    plain.write(handshakeText())
    await plain.closed
    const half = port.connect()
    half.write('PROXY TCP4 203')
    await expect.poll(() => port.server.connectionCount).toBe(2)
    await port.clock.advance(5_000)
    await Promise.all([half.closed, port.client.closed])
    expect(Buffer.concat([plain.received(), half.received()])).toHaveLength(0)
    expect(port.refusals()).toEqual(Array.from({ length: 3 }, () => ['proxy_header', 400]))
    expect(await port.metric('push_edge_proxy_headers_total', { result: 'malformed' })).toBe(1)
    expect(await port.metric('push_edge_proxy_headers_total', { result: 'timeout' })).toBe(2)
    await port.close()
  })

  test('a proxy that goes before its header is complete leaves nothing', async () => {
    const port = await serveOpen({}, { proxyAddresses: loopback })
    port.client.write('PROXY ')
    await expect.poll(() => port.server.connectionCount).toBe(1)
    port.client.end()
    await expect.poll(() => port.server.connectionCount).toBe(0)
    await port.close()
  })

  test.each([
    ['a line', Buffer.from(line)],
    ['a block', block],
  ])('%s from an address that is no proxy is refused', async (_what, header) => {
    const port = await serveOpen()
    expect(await answered(port.client, Buffer.concat([header, Buffer.from(handshakeText())]))).toBe(400)
    await port.client.closed
    expect(port.refusals()).toEqual([['proxy_untrusted', 400]])
    expect(port.admitted).toEqual([])
    await port.close()
  })
})

test('a flood of refusals makes few lines, which say how many were left out', async () => {
  const port = await serveOpen()
  for (let index = 0; index < 30; index++) {
    const client = rawClient(port.server.address)
    expect(await answered(client, handshakeText({}, '/nowhere'))).toBe(404)
    await client.closed
  }
  expect(port.refusals()).toHaveLength(20)
  await port.clock.advance(1_000)
  const last = port.connect()
  expect(await answered(last, handshakeText({}, '/nowhere'))).toBe(404)
  expect(port.log.withPhrase('device refused').at(-1)?.facts).toMatchObject({ left_out: 10 })
  expect(await port.metric('push_edge_refusals_total', { reason: 'wrong_path' })).toBe(31)
  await port.close()
})
