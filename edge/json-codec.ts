import type { FrameCodec } from './frame-codec.ts'
import { decodeClientFrame, encodeControlFrame, invalidFrame } from './frames.ts'
import { encodeMessageFrame } from './message-frame.ts'

/** Every frame is one JSON object, as text. */
export const jsonCodec: FrameCodec = {
  protocol: 'push.v1.json',
  binary: false,
  encodeControl: (frame) => Buffer.from(encodeControlFrame(frame)),
  encodeMessage: encodeMessageFrame,
  decode: (data) =>
    typeof data === 'string' ? decodeClientFrame(data) : invalidFrame('frames are text here; this one is binary'),
}
