import { type ClientFrame, encodeFrame, invalidFrame, type ParsedFrame, parseServerFrame } from './frames.ts'

/** One form of the protocol: how frames are written and read. */
export interface FrameCodec {
  /** The subprotocol that names it. */
  readonly subprotocol: string
  encode(frame: ClientFrame): string | Uint8Array<ArrayBuffer>
  /** Reads what a socket brought, whatever that is. Never throws. */
  parse(data: unknown): ParsedFrame
}

/** Every frame is one JSON object, as text. */
export const jsonCodec: FrameCodec = {
  subprotocol: 'push.v1.json',
  encode: encodeFrame,
  parse: (data) => (typeof data === 'string' ? parseServerFrame(data) : invalidFrame('a binary frame')),
}
