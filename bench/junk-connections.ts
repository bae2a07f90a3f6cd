// What junk leaves behind: an edge in a process of its own is flooded with connections that say nothing, half a request, or nonsense, in slices, first from
// one address and then from as many addresses as connections, while honest devices come in from another one. Prints the edge's memory before and after.
// Exits with 1 when an honest device was refused, or the memory has grown by more than a tenth and 16 MB.
//
//   node bench/junk-connections.ts [connections of each kind, default 10000]
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { edgeProcess } from './edge-process.ts'

const connections = Number(process.argv[2] ?? 10_000)
const warmUpConnections = 4_000
/** Below what a process may have open, and below what an edge takes in a second. */
const slice = 1_000

const upgrade = (credential: string) =>
  'GET /v1/connect HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n' +
  `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: push.v1.json\r\nAuthorization: Bearer ${credential}\r\n\r\n`
const junk = [
  '',
  'GET /v1/connect HTTP/1.1\r\nX-Slow: ',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  upgrade('junk'),
  'PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n',
]

const folder = mkdtempSync(join(tmpdir(), 'pushplane-junk-'))
const edge = edgeProcess(folder, {
  // Nobody is there: an honest device is upgraded, and then told to come back later.
  EDGE_REGISTRY_ADDRESSES: '127.0.0.1:9',
  EDGE_ROUTER_ADDRESSES: '127.0.0.1:9',
  EDGE_UNLIMITED_ADDRESSES: 'none',
  EDGE_HANDSHAKE_TIMEOUT_MS: '2000',
  // V8 lets garbage lie while there is room. In a small heap what stays is what is held, and an edge that holds on to junk ends.
  NODE_OPTIONS: '--max-old-space-size=64 --max-semi-space-size=1',
})

async function metric(name: string): Promise<number> {
  return (await edge.metric(name)) ?? 0
}

function open(localAddress: string, text: string) {
  const socket = connect({ port: Number(edge.fact('device_address').split(':')[1]), host: '127.0.0.1', localAddress })
  socket.on('error', () => {})
  if (text !== '') socket.write(text, 'latin1')
  return socket
}

/** What an honest device is answered. */
async function answerTo(deviceId: string): Promise<string> {
  const socket = open('127.0.0.2', upgrade(`dev:${deviceId}`))
  const [answer] = await Promise.race([once(socket, 'data'), once(socket, 'close').then(() => ['closed'])])
  socket.destroy()
  return String(answer).slice(0, 12)
}

let refused = 0

async function flood(count: number, addressOf: (index: number) => string): Promise<void> {
  for (let done = 0; done < count; done += slice) {
    const closed = Array.from({ length: slice }, (_, index) => {
      const socket = open(addressOf(done + index), junk[index % junk.length] ?? '')
      socket.resume()
      return new Promise((resolve) => socket.once('close', resolve))
    })
    if ((await answerTo(`tv-${done}`)) !== 'HTTP/1.1 101') refused++
    await Promise.all(closed)
  }
}

async function memory(): Promise<number> {
  while ((await metric('push_edge_connections')) > 0) await delay(200)
  await delay(1_000)
  return metric('process_resident_memory_bytes')
}

const one = () => '127.0.0.1'
const many = (index: number) => `127.1.${index >> 8}.${index & 255}`
const shown = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`

try {
  await edge.start()
  const atStart = await memory()
  await flood(warmUpConnections, one)
  await flood(warmUpConnections, many)
  const before = await memory()
  console.log(`resident: ${shown(atStart)} at the start, ${shown(before)} after ${2 * warmUpConnections} connections to warm up`)
  let after = before
  for (const [whom, addressOf] of [
    ['one address', one],
    ['as many addresses', many],
  ] as const) {
    await flood(connections, addressOf)
    after = await memory()
    console.log(`resident: ${shown(after)} after ${connections} more from ${whom}`)
  }
  console.log(
    `addresses remembered: ${await metric('push_edge_addresses{state="remembered"}')}; honest devices refused: ${refused}`,
  )
  if (refused > 0 || after > before * 1.1 + 16e6) process.exitCode = 1
} finally {
  if (edge.running) await edge.stop(5_000)
  rmSync(folder, { recursive: true, force: true })
}
