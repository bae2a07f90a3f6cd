import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { WebSocketServer } from 'ws'
import { connectDevice } from './device.ts'
import { messageFrame, SERVER_TIME } from './testing/scripted-edge.ts'

test('over a real WebSocket: connect, handle, acknowledge, close', async () => {
  const http = createServer()
  const server = new WebSocketServer({ server: http, handleProtocols: () => 'push.v1.json' })
  await once(http.listen(0, '127.0.0.1'), 'listening')
  const { port } = http.address() as AddressInfo
  const accepted = once(server, 'connection')

  const handled: unknown[] = []
  const device = connectDevice({
    url: `ws://127.0.0.1:${port}/v1/connect`,
    token: 'dev:tv',
    onMessage: (message) => void handled.push(message.data),
  })
  const [socket, request] = await accepted
  expect(request.headers['sec-websocket-protocol']?.split(/, */)).toEqual([
    'push.v1.json',
    `push.bearer.${Buffer.from('dev:tv').toString('base64url')}`,
  ])
  const frames: unknown[] = []
  const answered = new Promise<void>((resolve) => {
    socket.on('message', (data: Buffer) => {
      frames.push(JSON.parse(data.toString()))
      resolve()
    })
  })
  const closed = once(socket, 'close')
  socket.send(
    JSON.stringify({ type: 'welcome', session_id: 's', device_id: 'tv', server_time: SERVER_TIME, ping_interval_ms: 30_000 }),
  )
  socket.send(JSON.stringify(messageFrame('m')))
  await answered
  expect(handled).toEqual([{ n: 1 }])
  expect(frames).toEqual([{ type: 'ack', ids: ['m'] }])
  await device.close()
  expect((await closed)[0]).toBe(1000)
  server.close()
  http.close()
})

test('over a real WebSocket: an address where nobody listens is a failed attempt', async () => {
  const http = createServer()
  await once(http.listen(0, '127.0.0.1'), 'listening')
  const { port } = http.address() as AddressInfo
  http.close()
  const device = connectDevice({ url: `ws://127.0.0.1:${port}/v1/connect`, token: 'dev:tv', onMessage: () => {} })
  const event = await new Promise((resolve) => device.on('disconnected', resolve))
  expect(event).toMatchObject({ code: 1006 })
  await device.close()
})
