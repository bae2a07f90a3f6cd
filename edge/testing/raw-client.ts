import { connect } from 'node:net'
import { expect } from 'vitest'

/** A client that sends what it likes. */
export interface RawClient {
  /** All that came so far. */
  readonly received: () => Buffer
  readonly closed: Promise<void>
  write(data: string | Buffer): void
  /** Resolves with the response's status. */
  status(): Promise<number>
  /** Resolves with the code of the close frame that the server sends after the handshake. */
  closeCode(): Promise<number>
  pause(): void
  end(): void
}

export function rawClient(address: string): RawClient {
  const [host, port] = address.split(':')
  const socket = connect(Number(port), host)
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(chunk))
  socket.on('error', () => {})
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
  const received = () => Buffer.concat(chunks)
  const statusOf = () => Number(/^HTTP\/1\.1 (\d{3})/.exec(received().toString('latin1'))?.[1] ?? 0)
  return {
    received,
    closed,
    write: (data) => socket.write(data),
    async status() {
      await expect.poll(statusOf, { interval: 5 }).toBeGreaterThan(0)
      return statusOf()
    },
    async closeCode() {
      await expect.poll(() => closeCodeIn(received()), { interval: 5 }).toBeDefined()
      return closeCodeIn(received()) ?? 0
    },
    pause: () => socket.pause(),
    end: () => socket.destroy(),
  }
}

/** The handshake of a well-behaved client; lines replace those of the same name, undefined leaves one out. */
export function handshakeText(lines: Record<string, string | undefined> = {}, path = '/v1/connect', method = 'GET'): string {
  const headers: Record<string, string | undefined> = {
    Host: 'edge',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Protocol': 'push.v1.json',
    Authorization: 'Bearer dev:tv-1',
    ...lines,
  }
  const text = Object.entries(headers).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}\r\n`]))
  return `${method} ${path} HTTP/1.1\r\n${text.join('')}\r\n`
}

/** A frame as a client sends it, masked with zeros. */
export function clientFrame(opcode: number, payload: Buffer, options: { fin?: boolean; masked?: boolean } = {}): Buffer {
  const { fin = true, masked = true } = options
  const length = Buffer.from(payload.length < 126 ? [payload.length] : [126, payload.length >> 8, payload.length & 0xff])
  length[0] = (length[0] ?? 0) | (masked ? 0x80 : 0)
  return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | opcode]), length, Buffer.alloc(masked ? 4 : 0), payload])
}

/** Reads the server's frames behind the handshake up to a close frame. */
function closeCodeIn(received: Buffer): number | undefined {
  let at = received.indexOf('\r\n\r\n') + 4
  if (at < 4) return undefined
  while (at + 2 <= received.length) {
    const opcode = (received[at] ?? 0) & 0x0f
    let size = received[at + 1] ?? 0
    let head = 2
    if (size === 126) {
      size = received.readUInt16BE(at + 2)
      head = 4
    }
    if (opcode === 8 && at + head + 2 <= received.length) return received.readUInt16BE(at + head)
    at += head + size
  }
  return undefined
}
