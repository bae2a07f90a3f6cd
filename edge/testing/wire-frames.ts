/** One frame of RFC 6455, section 5.2, as it is on the wire. */
export interface WireFrame {
  readonly fin: boolean
  /** The three reserved bits, RSV1 the highest. */
  readonly rsv: number
  readonly opcode: number
  readonly masked: boolean
  readonly payload: Buffer
}

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

/** How a client's frame differs from a plain masked one. */
export interface FrameOptions {
  readonly fin?: boolean
  readonly rsv?: number
  /** Undefined leaves the mask out. */
  readonly mask?: Buffer | undefined
  /** Bits of the length field; the shortest that holds the length by default. */
  readonly lengthBits?: 7 | 16 | 64
  /** What the length field says, where it is not the truth. */
  readonly claimedLength?: bigint
}

const someMask = Buffer.from([0x37, 0xfa, 0x21, 0x3d])

/** A frame as a client sends it, right or wrong. */
export function wireFrame(opcode: number, payload: Buffer | string = '', options: FrameOptions = {}): Buffer {
  const { fin = true, rsv = 0 } = options
  const mask = 'mask' in options ? options.mask : someMask
  const bytes = Buffer.from(payload)
  const length = options.claimedLength ?? BigInt(bytes.length)
  const bits = options.lengthBits ?? (length < 126n ? 7 : length < 65_536n ? 16 : 64)
  const field = Buffer.alloc(bits === 7 ? 1 : bits === 16 ? 3 : 9)
  if (bits === 7) field.writeUInt8(Number(length))
  else if (bits === 16) {
    field.writeUInt8(126)
    field.writeUInt16BE(Number(length), 1)
  } else {
    field.writeUInt8(127)
    field.writeBigUInt64BE(length, 1)
  }
  field[0] = (field[0] ?? 0) | (mask === undefined ? 0 : 0x80)
  const body = mask === undefined ? bytes : bytes.map((byte, index) => byte ^ (mask[index % 4] ?? 0))
  return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | (rsv << 4) | opcode]), field, mask ?? Buffer.alloc(0), body])
}

/** The payload of a close frame: section 5.5.1. */
export function closePayload(code: number, reason: Buffer | string = ''): Buffer {
  return Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)])
}

/** The server's whole frames behind the handshake, in order. */
export function framesBehindHandshake(received: Buffer): WireFrame[] {
  const frames: WireFrame[] = []
  let at = received.indexOf('\r\n\r\n') + 4
  if (at < 4) return frames
  while (at + 2 <= received.length) {
    const [first = 0, second = 0] = received.subarray(at, at + 2)
    const short = second & 0x7f
    const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0
    const masked = (second & 0x80) !== 0
    const head = 2 + lengthBytes + (masked ? 4 : 0)
    if (at + head > received.length) break
    const length =
      lengthBytes === 0 ? short : lengthBytes === 2 ? received.readUInt16BE(at + 2) : Number(received.readBigUInt64BE(at + 2))
    if (at + head + length > received.length) break
    const payload = received.subarray(at + head, at + head + length)
    frames.push({ fin: (first & 0x80) !== 0, rsv: (first >> 4) & 7, opcode: first & 0x0f, masked, payload })
    at += head + length
  }
  return frames
}
