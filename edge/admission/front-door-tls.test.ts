// What @peculiar/x509 needs.
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import { connect as connectTcp, type Socket } from 'node:net'
import { duplexPair } from 'node:stream'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { X509CertificateGenerator } from '@peculiar/x509'
import { beforeAll, expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { readEdgeConfig } from '../config.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import { createRetryAfter } from '../retry-after.ts'
import { addresses } from '../testing/lone-port.ts'
import { createAdmission } from './admission.ts'
import { guardDoor } from './front-door.ts'
import { type PortLimits, portLimits } from './port-limits.ts'

let identity: { key: string; cert: string }
beforeAll(async () => {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await X509CertificateGenerator.createSelfSigned({ name: 'CN=edge', keys, signingAlgorithm: algorithm })
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
  identity = { key: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`, cert: certificate.toString('pem') }
})

/** An HTTPS server behind the door, which answers every request with the address that the door knows. */
async function serveTls(limited: Partial<PortLimits> = {}) {
  const clock = new SteeredClock()
  const random = seededRandom(1)
  const metrics = createEdgeMetrics(createMetrics())
  const limits = { ...portLimits(readEdgeConfig({})), unlimitedAddresses: addresses('none'), ...limited }
  const retryAfter = createRetryAfter({ clock, random, ratePerSecond: 1 })
  const turnedAway: string[] = []
  const server = createServer(identity, (request, response) => {
    door.settled(request.socket)
    door.visitOf(request.socket)?.succeeded()
    response.end(door.visitOf(request.socket)?.address ?? 'nobody')
  })
  const door = guardDoor(server, {
    admission: createAdmission({ limits: () => limits, retryAfter, clock, random, metrics }),
    limits: () => limits,
    clock,
    metrics,
    turnedAway: (socket, { reason }) => void turnedAway.push(`${reason} ${socket.destroyed}`),
    counted: () => {},
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const bound = server.address()
  const port = typeof bound === 'object' ? (bound?.port ?? 0) : 0
  // Which sockets of the server are still in memory.
  const entered: WeakRef<object>[] = []
  server.prependListener('connection', (socket) => void entered.push(new WeakRef(socket)))
  return {
    port,
    entered,
    clock,
    door,
    turnedAway,
    async close() {
      door.close()
      await new Promise((resolve) => server.close(resolve))
      expect(clock.pendingTimers).toBe(0)
    },
  }
}

const tcp = (port: number) => {
  const socket = connectTcp(port, '127.0.0.1')
  socket.on('error', () => {})
  return socket
}

async function ask(socket: TLSSocket): Promise<string> {
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  socket.write('GET / HTTP/1.1\r\nHost: edge\r\n\r\n')
  const [chunk] = await once(socket, 'data')
  return String(chunk).split('\r\n\r\n')[1] ?? ''
}

test('a TLS handshake that stalls is cut when its time is over, without a word; a request in time has its visit and no deadline', async () => {
  const { port, clock, door, turnedAway, close } = await serveTls()
  const stalled = tcp(port)
  // The start of a client's greeting, and nothing more.
  stalled.write(Buffer.from('16030100c8010000c40303', 'hex'))
  let said = 0
  stalled.on('data', (chunk) => {
    said += chunk.length
  })
  const well = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false })
  expect(await ask(well)).toContain('127.0.0.1')
  expect(door.size).toBe(2)
  const cut = once(stalled, 'close')
  await clock.advance(10_000)
  await cut
  expect(turnedAway).toEqual(['timeout true'])
  expect(said).toBe(0)
  expect(door.size).toBe(1)
  well.destroy()
  await close()
})

test('a header of a proxy comes before TLS', async () => {
  const { port, close } = await serveTls({ proxyAddresses: addresses('127.0.0.1') })
  const socket = tcp(port)
  socket.write('PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n')
  const secure = connectTls({ socket, rejectUnauthorized: false })
  expect(await ask(secure)).toContain('203.0.113.9')
  secure.destroy()
  await close()
})

test('a header of a proxy and the greeting of TLS may come in one packet, or the greeting in parts', async () => {
  const { port, close } = await serveTls({ proxyAddresses: addresses('127.0.0.1') })
  const header = Buffer.from('PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n')
  for (const split of [undefined, 3, 100]) {
    const socket = tcp(port)
    const [client, wire] = duplexPair()
    const secure = connectTls({ socket: client, rejectUnauthorized: false })
    wire.once('data', (greeting: Buffer) => {
      const first = Buffer.concat([header, greeting.subarray(0, split)])
      socket.write(first, () => {
        if (split !== undefined) socket.write(greeting.subarray(split))
        wire.pipe(socket)
        socket.pipe(wire)
      })
    })
    expect(await ask(secure)).toContain('203.0.113.9')
    secure.destroy()
    socket.destroy()
  }
  await close()
})

test('one that is over a limit and finds no place to be heard is cut before TLS costs anything', async () => {
  const { port, turnedAway, close } = await serveTls({ addressConnectionLimit: 1, refusedSocketsMax: 0 })
  const first = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false })
  expect(await ask(first)).toContain('127.0.0.1')
  const cut = tcp(port)
  await once(cut, 'close')
  expect(turnedAway).toEqual(['address_connections true'])
  first.destroy()
  await close()
})

test('connections that end before TLS is agreed leave nothing behind, nor do those that end after', async () => {
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  const { port, entered, clock, door, close } = await serveTls()
  const silent: Socket[] = []
  for (let round = 0; round < 20; round++) {
    const gone = tcp(port)
    await once(gone, 'connect')
    gone.destroy()
    const junk = tcp(port)
    const junkClosed = once(junk, 'close')
    junk.resume().write('GET / HTTP/1.1\r\n\r\n')
    await junkClosed
    silent.push(tcp(port))
  }
  const well = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false })
  expect(await ask(well)).toContain('127.0.0.1')
  well.destroy()
  const cut = Promise.all(silent.map((socket) => once(socket, 'close')))
  await clock.advance(10_000)
  await cut
  await expect.poll(() => door.size).toBe(0)
  expect(entered).toHaveLength(61)
  // The last ones may still be held by what Node has at hand.
  const inMemory = () => {
    collect()
    return entered.filter((reference) => reference.deref() !== undefined).length
  }
  await expect.poll(inMemory, { timeout: 10_000 }).toBeLessThan(10)
  await close()
})
