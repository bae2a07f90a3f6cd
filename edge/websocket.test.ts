import { type EventEmitter, once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { afterEach, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { createMetrics } from '../service-kit/metrics.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { closeKinds } from './close-codes.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { jsonCodec } from './json-codec.ts'
import { fakeEdge } from './testing/fake-session.ts'
import { createWebSocketServer, type DeviceSocket, upgradeSocket, webSocketCarrier } from './websocket.ts'

let server: Server | undefined
let client: WebSocket | undefined
afterEach(async () => {
  client?.terminate()
  if (server === undefined) return
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
})

async function connected() {
  const log = recordingLog()
  const shared = { metrics: createEdgeMetrics(createMetrics()), log }
  const webSockets = createWebSocketServer(1_000)
  const upgraded = Promise.withResolvers<{ webSocket: DeviceSocket; socket: Duplex }>()
  server = createServer().listen(0, '127.0.0.1')
  server.on('upgrade', (request, socket, head) => {
    upgradeSocket(webSockets, request, socket, head, (webSocket) => upgraded.resolve({ webSocket, socket }))
  })
  await once(server, 'listening')
  client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/`, ['push.v1.json'])
  const { webSocket, socket } = await upgraded.promise
  await once(client, 'open')
  const { transport, bind } = webSocketCarrier(webSocket, socket, jsonCodec, shared)
  return { client, webSocket, socket, transport, bind, log }
}

test('frames of one tick go to the system together', async () => {
  const { client, socket, transport } = await connected()
  const received: string[] = []
  client.on('message', (data) => received.push(String(data)))
  for (const frame of ['a', 'b', 'c']) transport.write(Buffer.from(frame))
  expect(socket.writableCorked).toBe(1)
  await expect.poll(() => received).toEqual(['a', 'b', 'c'])
  expect(socket.writableCorked).toBe(0)
  transport.write(Buffer.from('d'))
  await expect.poll(() => received).toEqual(['a', 'b', 'c', 'd'])
})

test('a socket whose goodbye cannot be said is cut', async () => {
  const { webSocket, transport, log } = await connected()
  const closed = once(webSocket, 'close')
  transport.close({ ...closeKinds.drain, code: 99 as unknown as 4001 }, '')
  await closed
  expect(log.withPhrase('a close frame could not be sent')).toHaveLength(1)
})

test('a defect that a frame brings out ends that session with 1011, and nothing else', async () => {
  const { client, bind, transport, log } = await connected()
  const edge = fakeEdge()
  const { session } = edge.open()
  bind(session)
  session.receive = () => {
    throw new Error('defect')
  }
  session.handle = (event) => {
    if (event.type === 'end') transport.close(event.kind, '')
    return undefined
  }
  client.send('{}')
  const [code] = await once(client as unknown as EventEmitter, 'close')
  expect(code).toBe(1011)
  expect(log.withPhrase('a session ended by a defect')).toHaveLength(1)
})
