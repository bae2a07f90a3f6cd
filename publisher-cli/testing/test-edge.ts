import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'

/** The server's end of the device protocol, for one device: what it received, and a hand to send. */
export async function startTestEdge() {
  const http = createServer()
  const server = new WebSocketServer({ server: http, handleProtocols: () => 'push.v1.json' })
  await once(http.listen(0, '127.0.0.1'), 'listening')
  const { port } = http.address() as AddressInfo
  const received: { type: string; ids?: string[] }[] = []
  const tokens: (string | undefined)[] = []
  const sockets: WebSocket[] = []
  server.on('connection', (socket, request) => {
    sockets.push(socket)
    tokens.push(request.headers['sec-websocket-protocol']?.split(/, */)[1]?.replace('push.bearer.', ''))
    socket.on('message', (data) => received.push(JSON.parse(String(data))))
    socket.send(
      JSON.stringify({ type: 'welcome', session_id: 's-1', device_id: 'my-tv', server_time: 0, ping_interval_ms: 60_000 }),
    )
  })
  return {
    url: `ws://127.0.0.1:${port}/v1/connect`,
    received,
    tokens,
    sockets,
    send(id: string, fields: object) {
      const frame = {
        type: 'message',
        id,
        class: 'USER',
        priority: 'NORMAL',
        accept_time: 1,
        expire_time: 9_000_000_000,
        confirm: 'ACKNOWLEDGED',
        target: 'device/my-tv',
        ...fields,
      }
      for (const socket of sockets) socket.send(JSON.stringify(frame))
    },
    async close() {
      for (const socket of sockets) socket.terminate()
      server.close()
      http.close()
      await once(http, 'close')
    },
  }
}
