import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'

/** The server's end of the device protocol, for one device: what it received, and a hand to send. */
export async function startTestEdge() {
  const http = createServer(answer)
  const server = new WebSocketServer({ server: http, handleProtocols: (offered) => [...offered][0] ?? false })
  await once(http.listen(0, '127.0.0.1'), 'listening')
  const { port } = http.address() as AddressInfo
  const received: { type: string; ids?: string[] }[] = []
  const tokens: (string | undefined)[] = []
  const forms: (string | undefined)[] = []
  const sockets: WebSocket[] = []
  server.on('connection', (socket, request) => {
    sockets.push(socket)
    const [form, token] = request.headers['sec-websocket-protocol']?.split(/, */) ?? []
    forms.push(form)
    tokens.push(token?.replace('push.bearer.', ''))
    socket.on('message', (data) => received.push(JSON.parse(String(data))))
    socket.send(
      JSON.stringify({ type: 'welcome', session_id: 's-1', device_id: 'my-tv', server_time: 0, ping_interval_ms: 60_000 }),
    )
  })
  /** The same by an event stream, with one message. */
  function answer(request: IncomingMessage, response: ServerResponse): void {
    tokens.push(request.headers.authorization?.replace('Bearer ', ''))
    if (request.method === 'POST') {
      request.setEncoding('utf8').on('data', (text: string) => received.push(...JSON.parse(text)))
      response.writeHead(204).end()
      return
    }
    response.writeHead(200, { 'content-type': 'text/event-stream', connection: 'close' })
    const event = (frame: object) => response.write(`data: ${JSON.stringify(frame)}\n\n`)
    event({ type: 'welcome', session_id: 's-1', device_id: 'my-tv', server_time: 0, ping_interval_ms: 60_000 })
    event({ ...messageFrame('m1'), name: 'hello' })
  }
  return {
    url: `ws://127.0.0.1:${port}/v1/connect`,
    streamUrl: `http://127.0.0.1:${port}/v1/events`,
    received,
    tokens,
    forms,
    sockets,
    send(id: string, fields: object) {
      const frame = { ...messageFrame(id), ...fields }
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

function messageFrame(id: string) {
  return {
    type: 'message',
    id,
    class: 'USER',
    priority: 'NORMAL',
    accept_time: 1,
    expire_time: 9_000_000_000,
    confirm: 'ACKNOWLEDGED',
    target: 'device/my-tv',
  }
}
