import { isPushId } from '../service-kit/ids.ts'
import type { FrameCodec } from './frame-codec.ts'
import { type ControlFrame, encodeControlFrame, invalidFrame } from './frames.ts'
import { encodeMessageFrame, tooLarge } from './message-frame.ts'

/**
 * Every frame is one event of an event stream (WHATWG HTML, server-sent events): its name is the frame's type, its data the frame of the JSON form in one
 * line; a message's id is the event's id. Nothing comes from the device this way.
 */
export const sseCodec: FrameCodec = {
  protocol: 'push.v1.sse',
  binary: false,
  encodeControl: (frame) => Buffer.from(eventText(frame)),
  encodeMessage(delivery, limitBytes) {
    const encoded = encodeMessageFrame(delivery, limitBytes)
    if (!encoded.ok) return encoded
    const { messageId } = delivery
    const head = `event: message\n${isPushId(messageId) ? `id: ${messageId}\n` : ''}data: `
    const bytes = Buffer.concat([Buffer.from(head), inOneLine(encoded.bytes), blankLine])
    return bytes.length > limitBytes ? tooLarge(bytes.length, limitBytes) : { ok: true, bytes }
  },
  decode: () => invalidFrame('an event stream carries frames to the device only'),
}

/** One event. `retryMs` is how long an EventSource waits after the stream has ended until it comes again. */
export function eventText(frame: ControlFrame, retryMs?: number): string {
  const retry = retryMs === undefined ? '' : `retry: ${Math.round(retryMs)}\n`
  return `${retry}event: ${eventNames.get(frame.type) ?? frame.type}\ndata: ${encodeControlFrame(frame)}\n\n`
}

/** An EventSource tells of its own failures by `error`: the frame must not look like one. */
const eventNames = new Map([['error', 'problem']])
const blankLine = Buffer.from('\n\n')

/** A JSON payload keeps its publisher's spelling. Line ends can only stand between its tokens, where a space means the same. */
function inOneLine(json: Buffer): Buffer {
  for (let at = 0; at < json.length; at++) if (json[at] === 0x0a || json[at] === 0x0d) json[at] = 0x20
  return json
}
