import { connect } from 'node:net'
import { expect } from 'vitest'
import { framesBehindHandshake, opcodes, type WireFrame } from './wire-frames.ts'

/** A client that sends what it likes. */
export interface RawClient {
  /** All that came so far. */
  readonly received: () => Buffer
  /** The whole frames that came after the handshake. */
  readonly frames: () => WireFrame[]
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
  const frames = () => framesBehindHandshake(received())
  // A close frame may come without a code.
  const closeCode = () =>
    frames()
      .find(({ opcode, payload }) => opcode === opcodes.close && payload.length >= 2)
      ?.payload.readUInt16BE(0)
  const statusOf = () => Number(/^HTTP\/1\.1 (\d{3})/.exec(received().toString('latin1'))?.[1] ?? 0)
  return {
    received,
    frames,
    closed,
    write: (data) => socket.write(data),
    async status() {
      await expect.poll(statusOf, { interval: 5 }).toBeGreaterThan(0)
      return statusOf()
    },
    async closeCode() {
      await expect.poll(closeCode, { interval: 5 }).toBeDefined()
      return closeCode() ?? 0
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
