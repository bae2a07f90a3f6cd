import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { type SmallPlane, startSmallPlane } from './small-plane.ts'

const slowConnections = 400
/** The tool sends no headers but its own; a cookie may hold a second one. */
const credential = 'a=b\r\nAuthorization: Bearer dev:slow'
/** What the edge gives a request; far below what the tool would take by itself. */
const handshakeTimeoutMs = 3_000

let folder: string
let plane: SmallPlane

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pushplane-slow-requests-'))
  // Loopback is not limited by address: each connection has to die of its own slowness.
  plane = await startSmallPlane({ EDGE_HANDSHAKE_TIMEOUT_MS: String(handshakeTimeoutMs) })
})

afterAll(async () => {
  await plane?.close()
  await rm(folder, { recursive: true, force: true })
})

/** Runs slowhttptest until no connection is left, or its time is over; resolves with what it said last. */
function slowHttpTest(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('slowhttptest', args, { cwd: folder })
    let said = ''
    const take = (chunk: Buffer) => {
      said = (said + chunk.toString('latin1')).slice(-20_000)
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    child.once('error', (cause) =>
      reject(new Error('slowhttptest is needed: install the Debian package of that name', { cause })),
    )
    child.once('close', () => resolve(said))
  })
}

/** The value of a metric of the edge; 0 when it has not been counted. */
async function metric(name: string): Promise<number> {
  return (await plane.edge.metric(name)) ?? 0
}

/** Connects as a device, and resolves when it is let in. */
async function connectDevice(deviceId: string): Promise<void> {
  const headers = { authorization: `Bearer dev:${deviceId}` }
  const url = `ws://${plane.edge.fact('device_address')}/v1/connect`
  const device = new WebSocket(url, ['push.v1.json'], { headers, handshakeTimeout: 30_000 })
  await new Promise<void>((resolve, reject) => {
    device.once('message', () => resolve())
    device.once('error', reject)
    device.once('close', (code) => reject(new Error(`closed with ${code}`)))
  })
  device.removeAllListeners()
  device.terminate()
}

test.for([
  ['headers that never end', '/v1/connect', ['-H', '-i', '1', '-x', '24']],
  ['headers of an event stream that never end', '/v1/events', ['-H', '-i', '1', '-x', '24']],
  ['a body that never ends', '/v1/answers', ['-B', '-i', '1', '-s', '8192', '-x', '10', '-t', 'POST', '-j', credential]],
  [
    'an answer that is read byte by byte, asked for many times',
    '/healthz',
    ['-X', '-k', '10', '-w', '1', '-y', '2', '-n', '1', '-z', '1'],
  ],
] as const)('slowhttptest, %s: devices come in meanwhile, and nothing of it is left', async ([_what, path, mode]) => {
  const count = String(slowConnections)
  const url = `http://${plane.edge.fact('device_address')}${path}`
  const timeouts = 'push_edge_refusals_total{reason="timeout"}'
  const cutBefore = await metric(timeouts)
  let attacking = true
  const attack = slowHttpTest(
    ...mode,
    '-c',
    count,
    '-r',
    count,
    '-l',
    mode[0] === '-X' ? '20' : '60',
    '-p',
    '20',
    '-u',
    url,
  ).finally(() => {
    attacking = false
  })
  let devices = 0
  let left = Number.POSITIVE_INFINITY
  while (attacking) {
    await connectDevice(`tv-${devices++}`)
    const connections = await metric('push_edge_connections')
    if (attacking) left = connections
  }
  const said = await attack
  // It was there, and the edge ended every connection of it before its time was over. Where answers are read slowly it is the
  // system that still holds the rest of what the edge has written and closed.
  expect(said).toMatch(mode[0] === '-X' ? /Exit status:.* Hit test time limit/ : /Exit status:.* No open connections left/)
  // Of those with one credential most are refused for the rate of their device.
  if (mode[0] === '-H') expect((await metric(timeouts)) - cutBefore).toBeGreaterThan(slowConnections / 2)
  if (mode[0] === '-B') expect((await metric(timeouts)) - cutBefore).toBeGreaterThan(50)
  if (mode[0] === '-X') expect(left).toBeLessThan(slowConnections / 10)
  expect(devices).toBeGreaterThan(0)
  await expect.poll(() => metric('push_edge_waiting_connections'), { timeout: 60_000 }).toBe(0)
  await expect.poll(() => metric('push_edge_handshakes'), { timeout: 60_000 }).toBe(0)
  await expect.poll(() => metric('push_edge_answer_requests'), { timeout: 60_000 }).toBe(0)
  expect(plane.edge.lines().filter(({ level }) => level === 'error' || level === 'fatal')).toEqual([])
})
