import type { Delivery } from '../gen/push/internal/v1/edge.ts'
import type { ControlFrame, DecodedFrame } from './frames.ts'
import { jsonCodec } from './json-codec.ts'
import type { EncodedMessage } from './message-frame.ts'
import { protobufCodec } from './protobuf-codec.ts'

/** One form of the device protocol: how frames are written and read. Holds nothing; all sessions of the form share it. */
export interface FrameCodec {
  /** What rows in the registry call it; of a WebSocket it is the subprotocol. */
  readonly protocol: string
  /** A WebSocket carries its frames as binary messages, not as text. */
  readonly binary: boolean
  encodeControl(frame: ControlFrame): Buffer
  /** `limitBytes` bounds the whole frame. Never throws. */
  encodeMessage(delivery: Delivery, limitBytes: number): EncodedMessage
  /** Reads one frame from the device: a string came as text, a Buffer as binary. Never throws. */
  decode(data: string | Buffer): DecodedFrame
}

/** Forms that a WebSocket may have. Of several that a client offers the first of these is taken, in whatever order it offers them. */
const webSocketCodecs: readonly FrameCodec[] = [protobufCodec, jsonCodec]

/** The form for a client that offers these subprotocols; undefined when none of them is known. */
export function codecFor(offered: readonly string[]): FrameCodec | undefined {
  return webSocketCodecs.find(({ protocol }) => offered.includes(protocol))
}

/** Every subprotocol that a client may offer, for people. */
export const subprotocolNames: string = webSocketCodecs.map(({ protocol }) => protocol).join(' or ')
